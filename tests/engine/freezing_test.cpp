// Parameters that the user switches off and on between steps (gradual unfreezing).
#include "engine/support.h"

#include <torch/optim/adamw.h>

namespace {

/// A lower level with two parameters, a and b, that pull at each other and at y.
struct Two {
  at::Tensor a = leaf({0.2, -0.4}), b = leaf({0.9, 0.1}), y = leaf({0.5, 0.6});

  Lambda low(bool train_a = true) const {
    const auto loss = [a = a, b = b, y = y](const Batch&) {
      return 0.5 * (a - y).square().sum() + 0.5 * (b - y.square()).square().sum() +
             0.3 * (a * b * y).sum() + 0.05 * b.pow(4).sum();
    };
    return train_a ? Lambda(mlo::trains(a, b), loss) : Lambda(mlo::trains(b), loss);
  }
  Lambda up() const {
    return {y, [a = a, b = b, y = y](const Batch&) {
              return 0.5 * (a - 1.0).square().sum() + 0.5 * (b + 1.0).square().sum() +
                     0.1 * (a * b).sum() + 0.05 * y.square().sum();
            }};
  }
};

}  // namespace

TEST_CASE(
    "A parameter that is frozen between steps is not trained, and its optimizer's state waits",
    "[engine][freezing]") {
  const Two two;
  Engine engine;
  engine.add("low", two.low(),
             {.optimizer = mlo::adamw({.lr = 0.05, .weight_decay = 0.1}),
              .best_response = mlo::one_step()});
  engine.add("up", two.up(), sgd(0.0));

  Two hand;  // the same without the engine: what is frozen has no gradient
  const Lambda loss = hand.low();
  torch::optim::AdamW optimizer({hand.a, hand.b},
                                torch::optim::AdamWOptions(0.05).weight_decay(0.1));
  for (int step = 0; step < 8; ++step) {
    const bool frozen = step >= 2 && step < 5;
    two.a.set_requires_grad(!frozen);
    hand.a.set_requires_grad(!frozen);
    engine.step();
    optimizer.zero_grad();
    loss.function({}).loss.backward();
    if (frozen) hand.a.mutable_grad().reset();
    optimizer.step();
    INFO("step " << step);
    CHECK(at::allclose(two.a, hand.a, 1e-12, 1e-14));
    CHECK(at::allclose(two.b, hand.b, 1e-12, 1e-14));
    CHECK(two.a.requires_grad() == !frozen);  // the user's word stays
    CHECK(two.b.requires_grad());
    hand.y.mutable_grad().reset();
  }
  CHECK_FALSE(at::allclose(two.a, leaf({0.2, -0.4})));
}

TEST_CASE("A frozen parameter is a constant of the hypergradient, whatever the method",
          "[engine][freezing]") {
  const std::pair<const char*, std::function<std::unique_ptr<mlo::Method>()>> methods[] = {
      {"one_step", [] { return mlo::one_step(); }},
      {"one_step, fresh graph", [] { return mlo::one_step({.keep_graph = false}); }},
      {"darts", [] { return mlo::darts(); }},
      {"cg", [] { return mlo::cg(); }},
      {"neumann", [] { return mlo::neumann({.step = 0.05}); }},
      {"unrolled", [] { return mlo::unrolled(); }},
      {"duals", [] { return by_duals(); }},
  };
  for (const auto& [name, method] : methods)
    for (const bool at_build : {false, true}) {
      INFO(name << (at_build ? ", frozen before build" : ""));
      const auto hypergradients = [&, method = method](bool never_trained) {
        const Two two;
        Engine engine;
        if (never_trained) two.a.set_requires_grad(false);
        engine.add("low", two.low(!never_trained),
                   {.optimizer = mlo::adam({.lr = 0.05}), .unroll = 3, .best_response = method()});
        engine.add("up", two.up(), sgd());
        if (!at_build) engine.build();
        two.a.set_requires_grad(false);
        Tensors result;
        for (int i = 0; i < 3; ++i) {
          result.push_back(engine.hypergradient("up")[0]);
          engine.step();
        }
        CHECK(at::equal(two.a, leaf({0.2, -0.4})));
        // … and it is back as soon as it is on again.
        if (!never_trained) {
          two.a.set_requires_grad(true);
          const at::Tensor before = two.a.detach().clone();
          engine.step();
          CHECK_FALSE(at::equal(two.a, before));
        }
        return result;
      };
      const Tensors ours = hypergradients(false), expected = hypergradients(true);
      for (std::size_t i = 0; i < ours.size(); ++i)
        CHECK(
            at::allclose(ours[i], expected[i], name == std::string("darts") ? 1e-6 : 1e-10, 1e-12));
    }
}

TEST_CASE("A frozen parameter of an upper level stays where it is", "[engine][freezing]") {
  const at::Tensor x = leaf({0.2, 0.3}), y = leaf({0.5, 0.6}), z = leaf({0.1, 0.2});
  Engine engine;
  engine.add("low", Lambda(x, [=](const Batch&) { return 0.5 * (x - y - z).square().sum(); }),
             sgd());
  engine.add("up",
             Lambda(mlo::trains(y, z),
                    [=](const Batch&) {
                      return 0.5 * (x - 1.0).square().sum() + 0.1 * y.square().sum() +
                             0.1 * z.square().sum();
                    }),
             {.optimizer = mlo::adamw({.lr = 0.05, .weight_decay = 0.1})});
  engine.step();
  const at::Tensor before = y.detach().clone(), other = z.detach().clone();
  y.set_requires_grad(false);
  const Tensors g = engine.hypergradient("up");
  CHECK(at::equal(g[0], at::zeros_like(before)));
  CHECK(g[1].abs().min().item<double>() > 1e-3);
  engine.step();
  CHECK(at::equal(y, before));
  CHECK_FALSE(at::equal(z, other));
  CHECK_FALSE(y.requires_grad());
  CHECK(z.requires_grad());
  y.set_requires_grad(true);
  engine.step();
  CHECK_FALSE(at::equal(y, before));
}

TEST_CASE("A level may be frozen as a whole", "[engine][freezing]") {
  for (const bool lower : {false, true}) {
    const Two two;
    Engine engine;
    engine.add("low", two.low(),
               {.optimizer = mlo::adamw({.lr = 0.05}), .best_response = mlo::cg()});
    engine.add("up", two.up(), {.optimizer = mlo::adamw({.lr = 0.05})});
    engine.step();
    const Tensors held = lower ? Tensors{two.a, two.b} : Tensors{two.y};
    const Tensors before = copies(held);
    for (const auto& tensor : held) tensor.set_requires_grad(false);
    engine.step();
    CHECK(same_bits(copies(held), before));
    CHECK_FALSE(held[0].requires_grad());
    for (const auto& tensor : held) tensor.set_requires_grad(true);
    engine.step();
    CHECK_FALSE(same_bits(copies(held), before));
  }
}

TEST_CASE("Hooks and callbacks may freeze and unfreeze", "[engine][freezing]") {
  for (const bool by_hook : {false, true}) {
    INFO((by_hook ? "hook" : "callback"));
    const Two two;
    Engine engine({.steps = 6});
    int64_t step = 0;
    Tensors trace;
    const auto gradually = [&] {
      ++step;
      trace.push_back(two.a.detach().clone());
      CHECK(two.y.requires_grad());
      CHECK(two.a.requires_grad() == (step <= 2 || step > 4));
      two.a.set_requires_grad(step < 2 || step >= 4);
    };
    auto low = engine.add("low", two.low(), sgd());
    engine.add("up", two.up(), sgd());
    if (by_hook) {
      low->step_hook = gradually;
    } else {
      auto watch = std::make_shared<Watch>();
      watch->step = [&](const mlo::StepReport&) { gradually(); };
      engine.add(watch);
    }
    engine.run();
    REQUIRE(trace.size() == 6);
    for (std::size_t i = 1; i < trace.size(); ++i) {
      INFO("step " << i);
      CHECK(at::equal(trace[i], trace[i - 1]) == (i == 2 || i == 3));
    }
  }
}

TEST_CASE("A frozen parameter is still frozen when a step throws", "[engine][freezing]") {
  const Two two;
  bool broken = false;
  Engine engine;
  engine.add("low", two.low(), respond(mlo::darts()));
  engine.add("up",
             Lambda(two.y,
                    [&, y = two.y, a = two.a](const Batch&) {
                      if (broken) throw std::runtime_error("the user's own");
                      return (a - y).square().sum();
                    }),
             sgd());
  engine.step();
  two.b.set_requires_grad(false);
  broken = true;
  CHECK_THROWS_AS(engine.step(), std::runtime_error);
  CHECK(two.a.requires_grad());
  CHECK_FALSE(two.b.requires_grad());
  CHECK(two.y.requires_grad());
}

TEST_CASE("A level that is frozen when the engine is built is read all the same",
          "[engine][freezing]") {
  const Two two;
  Engine engine;
  engine.add("low", two.low(), sgd());
  engine.add("up", two.up(), sgd());
  for (const auto& tensor : {two.a, two.b, two.y}) tensor.set_requires_grad(false);
  CHECK(engine.graph().nodes[0].reads == std::vector<std::size_t>{1});
  CHECK(engine.graph().nodes[1].reads == std::vector<std::size_t>{0});
  for (const auto& tensor : {two.a, two.b, two.y}) CHECK_FALSE(tensor.requires_grad());
}
