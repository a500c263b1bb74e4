// What a loss reads without a graph, later than at first, or as a constant: found, named, and the
// same for every method.
#include "engine/support.h"

using mlo::LossError;

namespace {

double relative(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).norm().item<double>() / b.norm().item<double>();
}

/// Learning to reweight: each example's loss is weighted by a function of that loss, as a constant.
struct Reweight {
  at::Tensor x = leaf({2.4, 0.8}), y = leaf({0.7, -0.2});
  at::Tensor rows = at::tensor({1.0, 0.5, -0.7, 1.2, 0.3, -1.1}, at::kDouble).reshape({3, 2});
  at::Tensor wanted = at::tensor({0.9, -0.4, 0.2}, at::kDouble);
  using Constant = std::function<at::Tensor(const at::Tensor&)>;

  at::Tensor lower(const at::Tensor& x_, const at::Tensor& y_, const Constant& constant) const {
    const at::Tensor losses = (rows.matmul(x_) - wanted).square();
    return ((y_[0] * constant(losses) + y_[1]).sigmoid() * losses).mean();
  }
  static at::Tensor upper(const at::Tensor& x_) { return 0.5 * (x_ - 1.0).square().sum(); }

  void add_to(Engine& engine, std::unique_ptr<mlo::Method> method, const Constant& constant) const {
    engine.add("low", Lambda(x, [*this, constant](const Batch&) { return lower(x, y, constant); }),
               respond(std::move(method)));
    engine.add("up", Lambda(y, [*this](const Batch&) { return upper(x); }), sgd());
  }
  at::Tensor by_hand() const {
    const at::Tensor x0 = x.detach().clone().requires_grad_(),
                     y0 = y.detach().clone().requires_grad_();
    const at::Tensor loss = lower(x0, y0, [](const at::Tensor& t) { return t.detach(); });
    const at::Tensor after = x0 - 0.1 * torch::autograd::grad({loss}, {x0}, {}, true, true)[0];
    return torch::autograd::grad({upper(after)}, {y0})[0];
  }
};

}  // namespace

TEST_CASE("A stopped gradient is a constant for every method", "[engine][reads][constant]") {
  const std::pair<const char*, std::function<std::unique_ptr<mlo::Method>()>> methods[] = {
      {"kept graph", [] { return mlo::one_step(); }},
      {"fresh graph", [] { return mlo::one_step({.keep_graph = false}); }},
      {"differences", [] { return mlo::darts(); }},
      {"unrolled", [] { return mlo::unrolled(); }},
  };
  for (const auto& [name, method] : methods) {
    INFO(name);
    const Reweight problem;
    Engine engine;
    const auto watch = std::make_shared<Watch>();
    engine.add(watch);
    problem.add_to(engine, method(), [](const at::Tensor& t) { return mlo::stop_gradient(t); });
    const at::Tensor right = problem.by_hand();
    CHECK(relative(engine.hypergradient("up")[0], right) < 1e-7);
    CHECK(watch->warnings.empty());
  }
  CHECK_FALSE(mlo::stop_gradient(leaf(1.0)).requires_grad());  // outside of an engine
}

TEST_CASE("A detached part that differences see through is warned about",
          "[engine][reads][constant]") {
  const auto detached = [](const at::Tensor& t) { return t.detach(); };
  for (const bool differences : {false, true}) {
    const Reweight problem;
    Engine engine;
    const auto watch = std::make_shared<Watch>();
    engine.add(watch);
    problem.add_to(engine, differences ? mlo::darts() : mlo::one_step(), detached);
    const at::Tensor right = problem.by_hand();
    const double error = relative(engine.hypergradient("up")[0], right);
    CHECK((differences ? error > 0.3 : error < 1e-12));  // what the warning is about
    CHECK(watch->warnings.size() == (differences ? 1 : 0));
    if (differences)
      CHECK_THAT(watch->warnings.at(0),
                 Contains("'low'") && Contains("mlo::stop_gradient") && Contains("detach()"));
  }
}

TEST_CASE("A kink within the radius of differences is told from a detached part",
          "[engine][reads][warnings]") {
  const auto warnings = [](double kink) {
    const at::Tensor x = leaf(1.0), y = leaf(1.0);
    Engine engine({.steps = 1});
    engine.add("low",
               Lambda(x,
                      [=](const Batch&) {
                        return 0.5 * (x - 0.3).square() + 100.0 * (x * y - kink).relu();
                      }),
               {.optimizer = mlo::sgd({.lr = 1e-9}), .best_response = mlo::darts()});
    engine.add("up", Lambda(y, [=](const Batch&) { return (x - 1.0).square() + y.square(); }),
               {.optimizer = mlo::sgd({.lr = 1e-9})});
    const auto watch = std::make_shared<Watch>();
    engine.add(watch);
    engine.run();
    return watch->warnings;
  };
  CHECK(warnings(2.0).empty());
  const auto near = warnings(1.000002);
  REQUIRE(near.size() == 1);
  CHECK_THAT(near[0], Contains("'low'") && Contains("kinks") && !Contains("detach"));
}

TEST_CASE("A warning of the build waits for the first callback", "[engine][reads][warnings]") {
  const Reweight problem;
  Engine engine({.steps = 1});
  problem.add_to(engine, mlo::darts(), [](const at::Tensor& t) { return t.detach(); });
  engine.build();
  const auto watch = std::make_shared<Watch>();
  engine.add(watch);
  engine.run();
  REQUIRE(watch->warnings.size() == 1);
  CHECK_THAT(watch->warnings[0], Contains("mlo::stop_gradient"));
}

TEST_CASE("A parameter as a constant does not follow its shifts", "[engine][reads][constant]") {
  // Half of x by value: the choice must not share x's memory.
  const at::Tensor x = leaf({0.2, 0.3}), y = leaf(0.5);
  Engine engine;
  engine.add(
      "low",
      Lambda(x,
             [=](const Batch&) { return (0.5 * (x - y).square() * mlo::stop_gradient(x)).sum(); }),
      respond(mlo::darts()));
  engine.add("up", Lambda(y, [=](const Batch&) { return 0.5 * (x - 1.0).square().sum(); }), sgd());
  const at::Tensor x0 = at::tensor({0.2, 0.3}, at::kDouble), after = x0 - 0.1 * (x0 - 0.5) * x0;
  const double right = ((after - 1.0) * 0.1 * x0).sum().item<double>();
  CHECK(engine.hypergradient("up")[0].item<double>() == Approx(right).epsilon(1e-8));
}

TEST_CASE("A detached parameter of a level that is otherwise read is refused by name",
          "[engine][reads]") {
  const at::Tensor x = leaf(0.2), a = leaf(0.5), b = leaf(0.7), unused = leaf(3.0);
  const auto build = [&](Engine& engine,
                         const std::function<at::Tensor(const at::Tensor&)>& constant) {
    engine.add("low",
               Lambda(x, [=](const Batch&) { return 0.5 * (x - a).square() + x * constant(b); }),
               respond(mlo::darts()));
    engine.add(
        "up",
        Lambda(mlo::trains(a, b, unused),
               [=](const Batch&) { return 0.5 * (x - 1.0).square() + a.square() + b.square(); }),
        sgd());
    engine.build();
  };
  Engine engine;
  check_refused<LossError>([&] { build(engine, [](const at::Tensor& t) { return t.detach(); }); },
                           {"level 'low'", "depends on level 'up' without a graph",
                            "('parameter1')", "mlo::stop_gradient"});
  CHECK(b.item<double>() == 0.7);

  Engine cured;
  build(cured, [](const at::Tensor& t) { return mlo::stop_gradient(t); });
  const Tensors g = cured.hypergradient("up");
  const double after = 0.2 - 0.1 * (0.2 - 0.5 + 0.7);
  CHECK(g[0].item<double>() == Approx(1.0 + (after - 1.0) * 0.1).epsilon(1e-7));
  CHECK(g[1].item<double>() == Approx(1.4).epsilon(1e-12));
  CHECK(g[2].item<double>() == 0.0);

  Engine whole;  // all that is read is detached
  check_refused<LossError>(
      [&] {
        whole.add("low", Lambda(x, [=](const Batch&) { return 0.5 * (x - a.detach()).square(); }),
                  sgd());
        whole.add("up", lead(a, x), sgd());
        whole.build();
      },
      {"('parameter0')", "LevelOptions::constant = {\"up\"}"});
}

TEST_CASE("A read that begins later is found without validations", "[engine][reads]") {
  const at::Tensor x = leaf(0.2), y = leaf(0.5);
  Engine engine;
  engine.add("low",
             Lambda(x,
                    [=](const Batch& batch) {
                      const at::Tensor pull = 0.5 * x.square();
                      return batch[0].item<double>() < 3.0 ? pull : pull + 0.5 * (x - y).square();
                    }),
             {.optimizer = mlo::sgd({.lr = 0.1}),
              .data = [](int64_t i) { return Batch{number(static_cast<double>(i))}; }});
  engine.add("up", lead(y, x), sgd());
  for (int i = 0; i < 3; ++i) engine.step();
  CHECK(engine.graph().nodes[0].reads.empty());
  engine.step();  // the fourth: the first batch that uses y, and reads are looked at again
  CHECK(engine.graph().nodes[0].reads == std::vector<std::size_t>{1});
  const double x4 = x.item<double>(), y4 = y.item<double>();
  const double after = x4 - 0.1 * (x4 + (x4 - y4));
  CHECK(engine.hypergradient("up")[0].item<double>() ==
        Approx(0.1 * y4 + (after - 1.0) * 0.1).epsilon(1e-12));
  CHECK(engine.counters("low").forwards == 5);  // looking is not counted
}

TEST_CASE("A replay that asks for fewer choices than the step took is refused",
          "[engine][reads][replay]") {
  for (const bool differences : {false, true}) {
    const at::Tensor x = leaf({1.0, 2.0}), y = leaf(0.5);
    bool asks = true, armed = false;
    Engine engine;
    engine.add("low",
               Lambda(x,
                      [&, x, y](const Batch&) {
                        at::Tensor mask = at::ones({2}, at::kDouble);
                        for (int i = 0; i < (asks ? 2 : 1); ++i)
                          mask = mask * mlo::replayed([] { return at::ones({2}, at::kDouble); });
                        return (0.5 * (x - y).square() * mask).sum();
                      }),
               respond(differences ? mlo::darts() : mlo::one_step({.keep_graph = false})));
    engine.add("up",
               Lambda(y,
                      [&, x, y](const Batch&) {
                        asks = !armed;
                        return 0.5 * (x - 1.0).square().sum() + y.square();
                      }),
               sgd());
    engine.build();
    armed = true;
    check_refused<LossError>(
        [&] { engine.step(); },
        {"'low'", "mlo::replayed 1 times", "in the step itself 2 times", "must not depend"});
  }
}

TEST_CASE("A choice inside a choice is part of the outer one", "[engine][reads][replay]") {
  const at::Tensor x = leaf({0.3, 0.9, 0.1, 0.6}), y = leaf(0.5);
  std::vector<at::Tensor> masks;
  Engine engine;
  engine.add("low",
             Lambda(x,
                    [&, x, y](const Batch&) {
                      const at::Tensor mask = mlo::replayed([&] {
                        const at::Tensor best =
                            mlo::replayed([&] { return std::get<1>(x.topk(2)); });
                        return at::zeros({4}, at::kDouble).index_fill(0, best, 1.0) *
                               at::rand({4}, at::kDouble);
                      });
                      masks.push_back(mask * at::rand({4}, at::kDouble));
                      return (0.5 * (x - y).square() * masks.back()).sum();
                    }),
             respond(mlo::darts()));
  engine.add("up", lead(y, x), sgd());
  engine.build();
  masks.clear();
  const double g = engine.hypergradient("up")[0].item<double>();
  REQUIRE(masks.size() >= 3);
  for (const auto& mask : masks) CHECK(at::equal(mask, masks[0]));
  const at::Tensor x0 = at::tensor({0.3, 0.9, 0.1, 0.6}, at::kDouble),
                   after = x0 - 0.1 * (x0 - 0.5) * masks[0];
  CHECK(g == Approx(0.05 + ((after - 1.0) * 0.1 * masks[0]).sum().item<double>()).epsilon(1e-7));
}

TEST_CASE("A second derivative that LibTorch has wrong is refused by name",
          "[engine][reads][weight_norm]") {
  torch::manual_seed(3);
  const at::Tensor v = at::randn({3, 4}, at::kDouble).requires_grad_(),
                   g = at::rand({3, 1}, at::kDouble).requires_grad_();
  const at::Tensor data = at::randn({5, 4}, at::kDouble), y = leaf(0.5);
  const auto fused = [=] { return at::_weight_norm(v, g, 0); };
  const auto written_out = [=] { return g * v / v.norm(2, {1}, /*keepdim=*/true); };
  const auto loss = [=](const std::function<at::Tensor()>& weight) {
    return (data.matmul(weight().t()) - y).square().mean() + (weight().pow(3)).sum();
  };
  // The evidence: H d by autograd against the same with the operation written out.
  const auto product = [&](const std::function<at::Tensor()>& weight) {
    const auto first = torch::autograd::grad({loss(weight)}, {v}, {}, true, true);
    return torch::autograd::grad({(first[0] * data.slice(0, 0, 3)).sum()}, {v})[0];
  };
  CHECK(relative(product(fused), product(written_out)) > 0.05);

  const auto build = [&](const std::function<at::Tensor()>& weight,
                         std::unique_ptr<mlo::Method> method) {
    Engine engine;
    engine.add("low", Lambda(mlo::trains(v, g), [=](const Batch&) { return loss(weight); }),
               respond(std::move(method)));
    engine.add("up", Lambda(y, [=](const Batch&) { return written_out().square().sum(); }), sgd());
    engine.build();
  };
  check_refused<mlo::UnsupportedError>(
      [&] { build(fused, mlo::cg()); },
      {"'low'", "WeightNormInterface", "is wrong", "g * v / v.norm", "mlo::darts()"});
  CHECK_NOTHROW(build(written_out, mlo::cg()));
  CHECK_NOTHROW(build(fused, mlo::darts()));
}
