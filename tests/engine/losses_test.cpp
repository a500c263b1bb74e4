// What a loss and a data source must not do, at build and later.
#include "engine/support.h"

#include <torch/cuda.h>

#include <random>

using mlo::ConfigError;
using mlo::LossError;
using mlo::NonFiniteError;

namespace {

/// Runs a level whose loss goes wrong from the beginning, then one whose loss goes wrong at its
/// third step: both must be refused, naming level and step.
template <class Error>
void check_loss_refused(const std::function<at::Tensor(const at::Tensor& x)>& wrong,
                        std::initializer_list<std::string> words) {
  for (const bool later : {false, true}) {
    INFO((later ? "at step 2" : "at build"));
    const at::Tensor x = leaf({3.0, 4.0});
    bool broken = !later;
    Engine engine({.steps = 10});
    engine.add("head",
               Lambda(x,
                      [&](const Batch&) -> at::Tensor {
                        return broken ? wrong(x) : 0.5 * x.square().sum();
                      }),
               sgd());
    if (later) {
      engine.step();
      engine.step();
      broken = true;
      check_refused<Error>([&] { engine.step(); }, {"level 'head' at step 2"});
      check_refused<Error>([&] { engine.step(); }, words);
    } else {
      check_refused<Error>([&] { engine.build(); }, {"level 'head'"});
      check_refused<Error>([&] { engine.step(); }, words);
    }
    CHECK(engine.counters("head").steps == (later ? 2 : 0));
    CHECK(x.requires_grad());
    broken = false;  // the cure is all it takes
    CHECK_NOTHROW(engine.step());
  }
}

}  // namespace

TEST_CASE("A loss that is no finite floating point scalar on a graph is refused",
          "[engine][loss]") {
  check_loss_refused<LossError>([](const at::Tensor& x) { return x.square(); },
                                {"shape [2]", "return a scalar", "loss.mean()"});
  check_loss_refused<LossError>([](const at::Tensor&) { return at::zeros({0}); },
                                {"shape [0]", "return a scalar"});
  check_loss_refused<LossError>([](const at::Tensor& x) { return x.sum().to(at::kLong); },
                                {"type Long", "floating point"});
  check_loss_refused<LossError>([](const at::Tensor&) { return at::Tensor(); },
                                {"undefined", "return a scalar"});
  check_loss_refused<LossError>([](const at::Tensor& x) { return x.detach().sum(); },
                                {"detached", "detach()", "no-grad"});
  check_loss_refused<NonFiniteError>([](const at::Tensor& x) { return (x - x).log().sum(); },
                                     {"the loss is -inf", "learning rate"});
  check_loss_refused<NonFiniteError>([](const at::Tensor& x) { return (-x).sqrt().sum(); },
                                     {"the loss is", "nan", "data"});
}

TEST_CASE("A loss of one element is a scalar, whatever its shape and dtype", "[engine][loss]") {
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const at::Tensor x = at::ones({2}, dtype).requires_grad_();
    Engine engine;
    engine.add("head",
               Lambda(x,
                      [x](const Batch&) {
                        return x.square().sum().reshape({1, 1});
                      }),
               sgd());
    engine.step();
    CHECK(engine.loss("head") == 2.0);
    CHECK(x[0].item<double>() == Approx(0.8).epsilon(0.01));
  }
}

TEST_CASE("A gradient that is not finite stops the run by level, step and parameter",
          "[engine][loss]") {
  const at::Tensor x = leaf({1.0, 0.0});
  Engine engine;
  engine.add("head", Lambda(x, [x](const Batch&) { return x.sqrt().sum(); }), sgd());
  check_refused<NonFiniteError>(
      [&] { engine.step(); },
      {"level 'head' at step 0", "the gradient of parameter 'parameter0'", "finite loss of 1"});
  CHECK(x[0].item<double>() == 1.0);
  CHECK(engine.counters("head").steps == 0);

  // The mixed derivative of x·√y is infinite at y = 0.
  const at::Tensor low = leaf(1.0), up = leaf(0.0);
  Engine two;
  two.add("low", Lambda(low, [=](const Batch&) { return 0.5 * low.square() + low * up.sqrt(); }),
          sgd());
  two.add("up", Lambda(up, [=](const Batch&) { return low + up; }), sgd());
  check_refused<NonFiniteError>(
      [&] { two.step(); }, {"level 'up' at step 0", "the hypergradient of parameter 'parameter0'"});
  CHECK(up.item<double>() == 0.0);
}

TEST_CASE("A read without a graph is refused, and declaring it constant cures it",
          "[engine][loss][reads]") {
  const at::Tensor x = leaf(0.2), y = leaf(0.5);
  const auto low = [&](bool by_detach) {
    return Lambda(x, [=](const Batch&) {
      if (by_detach) return 0.5 * (x - y.detach()).square();
      at::Tensor target;
      {
        const at::NoGradGuard no_grad;
        target = y * 1.0;
      }
      return 0.5 * (x - target).square();
    });
  };
  for (const bool by_detach : {false, true}) {
    Engine engine;
    engine.add("low", low(by_detach), sgd());
    engine.add("up", lead(y, x), sgd());
    check_refused<LossError>([&] { engine.build(); },
                             {"level 'low'", "depends on level 'up' without a graph",
                              "silently drop", "LevelOptions::constant = {\"up\"}", "detach()"});
    CHECK(y.item<double>() == 0.5);

    Engine cured;
    cured.add("low", low(by_detach), {.optimizer = mlo::sgd({.lr = 0.1}), .constant = {"up"}});
    cured.add("up", lead(y, x), sgd());
    const auto& nodes = cured.graph().nodes;
    CHECK(nodes[0].constants == std::vector<std::size_t>{1});
    CHECK(nodes[0].reads.empty());
    CHECK(nodes[1].reads == std::vector<std::size_t>{0});
    // Only the direct term is left.
    CHECK(cured.hypergradient("up")[0].item<double>() == Approx(0.1 * 0.5));
    CHECK(cured.counters("low").visits == 0);
  }
  Engine upward;  // the top reads the level below by value only
  upward.add("low", follow(x, y), sgd());
  upward.add("up",
             Lambda(y, [=](const Batch&) { return 0.5 * (y - 1.0).square() * x.item<double>(); }),
             sgd());
  check_refused<LossError>([&] { upward.build(); },
                           {"level 'up'", "depends on level 'low' without a graph", "{\"low\"}"});
}

TEST_CASE("A graph read declared constant has no share in the hypergradient",
          "[engine][loss][reads]") {
  const at::Tensor x = leaf(0.2), y = leaf(0.5);
  const auto hypergradient = [&](std::vector<std::string> constant) {
    Engine engine;
    engine.add("low", follow(x, y),
               {.optimizer = mlo::sgd({.lr = 0.0}), .constant = std::move(constant)});
    engine.add("up", lead(y, x), sgd());
    return engine.hypergradient("up")[0].item<double>();
  };
  CHECK(hypergradient({"up"}) == Approx(0.05).epsilon(1e-14));

  Engine engine;  // the control: the same read, differentiated, has one
  engine.add("low", follow(x, y), sgd(0.1));
  engine.add("up", lead(y, x), sgd());
  CHECK(engine.hypergradient("up")[0].item<double>() ==
        Approx(0.05 + 0.1 * (0.2 + 0.1 * 0.3 - 1.0)).epsilon(1e-14));
}

TEST_CASE("A declared read that a batch does not use counts as zero", "[engine][loss][reads]") {
  const at::Tensor x = leaf(0.2), y = leaf(0.5);
  Engine engine;
  engine.add("low", alone(x),
             {.optimizer = mlo::sgd({.lr = 0.1}), .reads = std::vector<std::string>{"up"}});
  engine.add("up", lead(y, x), sgd());
  CHECK(engine.graph().nodes[0].reads == std::vector<std::size_t>{1});
  CHECK(engine.hypergradient("up")[0].item<double>() == Approx(0.05).epsilon(1e-14));
  CHECK(engine.counters("low").visits == 1);
}

TEST_CASE("A read that only later batches use is found at the next validation",
          "[engine][loss][reads]") {
  const at::Tensor x = leaf(0.2), y = leaf(0.5);
  Engine engine({.steps = 4, .validate_every = 1});
  const auto data = [](int64_t i) {
    return Batch{at::scalar_tensor(i == 0 ? 0.0 : 1.0, at::kDouble)};
  };
  engine.add("low",
             Lambda(x,
                    [=](const Batch& batch) {
                      const at::Tensor pull = 0.5 * x.square();
                      return batch[0].item<double>() == 0.0 ? pull : pull + 0.5 * (x - y).square();
                    }),
             {.optimizer = mlo::sgd({.lr = 0.1}), .data = data, .constant = {}});
  engine.add("up", lead(y, x), sgd());
  CHECK(engine.graph().nodes[0].reads.empty());
  engine.run();
  CHECK(engine.graph().nodes[0].reads == std::vector<std::size_t>{1});
  CHECK(engine.counters("low").visits ==
        2);  // steps 0 and 1 did not know; the validation after step 1 saw it
}

TEST_CASE("A loss that changes on replay is refused, and its cures work",
          "[engine][loss][replay]") {
  const auto problem = [](const std::function<at::Tensor()>& mask, const at::Tensor& x) {
    return Lambda(x, [=](const Batch&) { return (0.5 * x.square() * mask()).sum(); });
  };
  std::mt19937 own(7);
  const auto draw = [&own] {
    at::Tensor mask = at::empty({16}, at::kDouble);
    for (int i = 0; i < 16; ++i) mask[i] = static_cast<double>(own() % 2);
    return mask;
  };
  Engine engine;
  engine.add("head", problem(draw, leaf(std::vector<double>(16, 1.0))), sgd());
  check_refused<LossError>([&] { engine.build(); },
                           {"level 'head'", "changes on replay", ", then ",
                            "LibTorch's default generators", "mlo::replayed", "keep no state"});

  const std::pair<const char*, std::function<at::Tensor()>> cures[] = {
      {"replayed", [&] { return mlo::replayed(draw); }},
      // A choice that draws leaves the draws after it as they are, taken or played back.
      {"a random choice, then random numbers",
       [] {
         return mlo::replayed([] { return at::rand({16}, at::kDouble).round(); }) +
                at::rand({16}, at::kDouble).round();
       }},
      {"LibTorch's generators", [] { return at::rand({16}, at::kDouble).round(); }},
  };
  for (const auto& [name, mask] : cures) {
    INFO(name);
    const at::Tensor x = leaf(std::vector<double>(16, 1.0)), y = leaf(0.5);
    std::vector<at::Tensor> masks, of_steps;
    Engine cured;
    // Under finite differences three evaluations a step (the first time one more, to be sure), all
    // with the mask of the step, another one at the next step.
    cured.add("head",
              Lambda(x,
                     [&, x, y, mask = mask](const Batch&) {
                       masks.push_back(mask());
                       return (0.5 * (x - y).square() * masks.back()).sum();
                     }),
              respond(mlo::darts()));
    cured.add("up", lead(y, x), sgd());
    cured.build();
    for (int i = 0; i < 3; ++i) {
      masks.clear();
      cured.step();
      REQUIRE(masks.size() >= 3);
      for (const at::Tensor& each : masks) CHECK(at::equal(each, masks[0]));
      of_steps.push_back(masks[0]);
    }
    CHECK_FALSE(at::equal(of_steps[0], of_steps[1]));
    CHECK_FALSE(at::equal(of_steps[1], of_steps[2]));
  }
}

TEST_CASE("A replay that asks for more choices than the step took is refused",
          "[engine][loss][replay]") {
  const at::Tensor x = leaf({1.0, 2.0}), y = leaf(0.5);
  int asks = 1;
  Engine engine;
  engine.add("low",
             Lambda(x,
                    [&](const Batch&) {
                      at::Tensor mask = at::ones({2}, at::kDouble);
                      for (int i = 0; i < asks; ++i)
                        mask = mask * mlo::replayed([] { return at::ones({2}, at::kDouble); });
                      return (0.5 * (x - y).square() * mask).sum();
                    }),
             respond(mlo::darts()));
  engine.add("up",
             Lambda(y,
                    [&](const Batch&) {
                      asks = 2;
                      return 0.5 * (x - 1.0).square().sum() + y.square();
                    }),
             sgd());
  engine.build();
  asks = 1;
  check_refused<LossError>(
      [&] { engine.step(); },
      {"'low'", "mlo::replayed", "more often", "1 times", "must not depend on the parameters"});
}

TEST_CASE("A loss that writes parameters is refused", "[engine][loss]") {
  check_loss_refused<LossError>(
      [](const at::Tensor& x) {
        {
          const at::NoGradGuard no_grad;
          x.clamp_(-100.0, 100.0);  // changes nothing but is a write
        }
        return x.square().sum();
      },
      {"wrote parameters", "only computes"});

  const at::Tensor x = leaf(0.2), y = leaf(0.5);
  Engine engine;  // of another level
  engine.add("low", follow(x, y), sgd());
  engine.add("up",
             Lambda(y,
                    [=](const Batch&) {
                      {
                        const at::NoGradGuard no_grad;
                        x.mul_(1.0);
                      }
                      return (x - y).square();
                    }),
             sgd());
  check_refused<LossError>([&] { engine.build(); }, {"level 'up'", "wrote parameters"});
}

TEST_CASE("Data that gives nothing is refused by level and step", "[engine][data]") {
  struct Nothing final : mlo::BatchSource {
    Batch next() override { return {}; }
    void save(State&, const std::string&) const override {}
    void load(const State&, const std::string&) override {}
  };
  const at::Tensor x = leaf(1.0);
  const auto refused = [&](mlo::Data data, int64_t steps,
                           std::initializer_list<std::string> words) {
    Engine engine({.steps = 10});
    engine.add("head", alone(x), {.optimizer = mlo::sgd(), .data = std::move(data)});
    check_refused<ConfigError>([&] { engine.run(); }, words);
    CHECK(engine.counters("head").steps == steps);
  };
  refused(std::make_unique<Nothing>(), 0,
          {"level 'head' at step 0", "empty batch", "leaves LevelOptions::data out"});
  refused([](int64_t) { return Batch{}; }, 0, {"level 'head' at step 0", "empty batch"});
  refused([](int64_t i) { return i < 3 ? Batch{at::ones({2})} : Batch{}; }, 3,
          {"level 'head' at step 3", "empty batch"});
  refused(
      [](int64_t) {
        return Batch{at::ones({2}), at::ones({0, 5})};
      },
      0, {"level 'head'", "[0, 5]", "at least one row"});
  refused([](int64_t) { return Batch{at::Tensor()}; }, 0, {"level 'head'", "undefined tensor"});
}

TEST_CASE("Parameters that change shape, dtype or device are refused at the next step",
          "[engine][loss]") {
  const auto refused = [](const at::Tensor& data, bool top,
                          std::initializer_list<std::string> words) {
    const at::Tensor x = leaf({0.2, 0.3}), y = leaf({0.5, 0.6});
    Engine engine;
    engine.add("low", follow(x, y), sgd());
    engine.add("up", lead(y, x), sgd());
    engine.step();
    (top ? y : x).set_data(data);
    check_refused<ConfigError>([&] { engine.step(); }, words);
    CHECK(engine.counters("up").steps == 1);
    CHECK(engine.counters("low").steps == 1);  // before any work
  };
  for (const bool top : {false, true}) {
    const std::string level = top ? "'up'" : "'low'";
    refused(at::zeros({3}, at::kDouble), top,
            {level, "'parameter0'", "was Double [2]", "is now Double [3]", "before Engine::add"});
    refused(at::zeros({2, 1}, at::kDouble), top, {level, "is now Double [2, 1]"});
    refused(at::zeros({2}, at::kFloat), top, {level, "was Double [2]", "is now Float [2]"});
    if (torch::cuda::is_available())
      refused(at::zeros({2}, at::kDouble).cuda(), top, {level, "on cpu", "on cuda:0"});
  }
  if (!torch::cuda::is_available())
    WARN("no CUDA device here: a parameter that changes its device was not tried");
}
