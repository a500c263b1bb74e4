// Methods that cannot do what the graph, the optimizer or the loss needs are refused by name, at
// build; their cures work.
#include "engine/support.h"

#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>

using mlo::UnsupportedError;
using Scale = mlo::IdentityOptions::Scale;

namespace {

mlo::OptimizerFactory rmsprop(double lr) {
  return [lr](const Tensors& parameters) {
    return std::make_shared<torch::optim::RMSprop>(parameters, torch::optim::RMSpropOptions(lr));
  };
}

using MakeMethod = std::function<std::unique_ptr<mlo::Method>()>;

}  // namespace

TEST_CASE(
    "A method that needs the derivative of an optimizer's step refuses optimizers it does not know",
    "[engine][methods]") {
  const auto add = [](Engine& engine, const at::Tensor& x, const at::Tensor& y,
                      std::unique_ptr<mlo::Method> method) {
    engine.add("low", follow(x, y),
               {.optimizer = rmsprop(0.25), .best_response = std::move(method)});
    engine.add("up", lead(y, x), sgd());
  };
  const std::pair<const char*, MakeMethod> refused[] = {
      {"'identity × exact'", [] { return mlo::one_step(); }},
      {"'identity × finite difference'", [] { return mlo::darts(); }},
      {"'identity × finite difference'", [] { return mlo::sama(); }},
      {"'unrolled × exact'", [] { return mlo::unrolled(); }},
  };
  for (const auto& [name, method] : refused) {
    const at::Tensor x = leaf(0.2), y = leaf(0.5);
    Engine engine;
    add(engine, x, y, method());
    check_refused<UnsupportedError>(
        [&] { engine.build(); },
        {"level 'low'", name, "torch::optim::RMSprop", "torch::optim::AdamW",
         "IdentityOptions::Scale::learning_rate", "mlo::cg()"});
    CHECK(engine.counters("low").steps == 0);
  }

  const auto hypergradient = [&](std::unique_ptr<mlo::Method> method, double* after) {
    const at::Tensor x = leaf(0.2), y = leaf(0.5);
    Engine engine;
    add(engine, x, y, std::move(method));
    const double g = engine.hypergradient("up")[0].item<double>();
    *after = x.item<double>();
    return g;
  };
  double x =
      0.0;  // ∂L/∂x at the x that was reached is x − 1; the mixed derivative is −1, the Hessian 1
  double g = hypergradient(mlo::one_step({}, {.scale = Scale::learning_rate}), &x);
  CHECK(g == Approx(0.05 + 0.25 * (x - 1.0)).epsilon(1e-14));
  g = hypergradient(mlo::darts({}, {.scale = Scale::learning_rate}), &x);
  CHECK(g == Approx(0.05 + 0.25 * (x - 1.0)).epsilon(1e-9));
  g = hypergradient(mlo::cg(), &x);
  CHECK(g == Approx(0.05 + (x - 1.0)).epsilon(1e-14));
  CHECK(x != 0.2);
}

TEST_CASE("AMSGrad has no known derivative either", "[engine][methods]") {
  const at::Tensor x = leaf(0.2), y = leaf(0.5);
  Engine engine;
  engine.add("low", follow(x, y),
             {.optimizer = mlo::use(std::make_shared<torch::optim::Adam>(
                  Tensors{x}, torch::optim::AdamOptions(0.1).amsgrad(true)))});
  engine.add("up", lead(y, x), sgd());
  check_refused<UnsupportedError>([&] { engine.build(); }, {"level 'low'", "amsgrad"});
}

TEST_CASE("An analytic oracle without analytic derivatives is refused", "[engine][methods]") {
  const at::Tensor x = leaf(0.2), y = leaf(0.5);
  Engine engine;
  engine.add("low", follow(x, y),
             respond(mlo::implicit(mlo::analytic_oracle(), mlo::conjugate_gradient_solver())));
  engine.add("up", lead(y, x), sgd());
  check_refused<UnsupportedError>([&] { engine.build(); },
                                  {"level 'low'", "'conjugate gradient × analytic'",
                                   "mlo::AnalyticDerivatives", "mlo::one_step()"});
}

TEST_CASE("Going back through several steps between which a level below moved is refused",
          "[engine][methods]") {
  const auto add = [](Engine& engine, int64_t unroll, std::unique_ptr<mlo::Method> method) {
    const at::Tensor x = leaf(0.2), y = leaf(0.3), z = leaf(0.5);
    engine.add("low", follow(x, z), sgd());
    engine.add("middle", Lambda(y, [=](const Batch&) { return 0.5 * (y - x * z).square(); }),
               {.optimizer = mlo::sgd(), .unroll = unroll, .best_response = std::move(method)});
    engine.add("up", lead(z, y), sgd());
  };
  Engine engine;
  add(engine, 3, mlo::unrolled());
  check_refused<UnsupportedError>(
      [&] { engine.build(); },
      {"level 'middle'", "'unrolled × exact'", "several steps", "level 'low'", "'up'",
       "unroll = 1 for level 'middle'", "mlo::cg()"});
  Engine one;
  add(one, 1, mlo::unrolled());
  CHECK_NOTHROW(one.step());
  Engine implicit;
  add(implicit, 3, mlo::cg());
  CHECK_NOTHROW(implicit.step());
}

TEST_CASE("Levels below that read each other are refused, and a constant cures it",
          "[engine][methods]") {
  const auto add = [](Engine& engine, std::vector<std::string> constant) {
    const at::Tensor x = leaf(0.2), y = leaf(0.3), z = leaf(0.5);
    const auto loss = [](const at::Tensor& own, const at::Tensor& other, const at::Tensor& top) {
      return Lambda(own, [=](const Batch&) { return 0.5 * (own - 0.5 * other - top).square(); });
    };
    engine.add("first", loss(x, y, z), {.optimizer = mlo::sgd(), .constant = std::move(constant)});
    engine.add("second", loss(y, x, z), sgd());
    engine.add("up", Lambda(z, [=](const Batch&) { return x.square() + y.square() + z.square(); }),
               sgd());
  };
  Engine engine;
  add(engine, {});
  check_refused<UnsupportedError>(
      [&] { engine.build(); },
      {"nested dependence below level 'up'", "'first', 'second' read each other",
       "LevelOptions::constant", "one problem"});
  Engine cured;
  add(cured, {"second"});
  CHECK_NOTHROW(cured.step());
}

TEST_CASE("Differences of parameters narrower than float32 are refused", "[engine][methods]") {
  const at::Tensor x = at::ones({2}, at::kBFloat16).requires_grad_(), y = leaf(0.5);
  const auto add = [&](Engine& engine, std::unique_ptr<mlo::Method> method) {
    engine.add("low",
               Lambda(x, [=](const Batch&) { return (x - y.to(at::kBFloat16)).square().sum(); }),
               respond(std::move(method)));
    engine.add(
        "up",
        Lambda(y, [=](const Batch&) { return x.to(at::kDouble).square().sum() + y.square(); }),
        sgd());
  };
  Engine engine;
  add(engine, mlo::darts());
  check_refused<UnsupportedError>(
      [&] { engine.step(); },
      {"level 'low'", "finite differences", "BFloat16", "float32", "mlo::one_step()"});
  Engine cured;
  add(cured, mlo::one_step());
  CHECK_NOTHROW(cured.step());
}

namespace {

/// A lower level that attends, 4 tokens of 8 in 2 heads, with the queries scaled by what the level
/// above trains.
struct Attention {
  at::Tensor weight = at::linspace(-1.0, 1.0, 64, at::kDouble).reshape({8, 8}).requires_grad_();
  at::Tensor scale = leaf(1.0);
  at::Tensor tokens = at::linspace(0.0, 3.0, 32, at::kDouble).sin().reshape({1, 4, 8});
  std::vector<std::vector<bool>> switches = {};  // as the lower loss saw them

  void add_to(Engine& engine, std::unique_ptr<mlo::Method> method, bool fused) {
    engine.add(
        "low",
        Lambda(weight,
               [this, fused](const Batch&) {
                 switches.push_back(attention_switches());
                 const auto heads = [](const at::Tensor& x) {
                   return x.reshape({1, 4, 2, 4}).transpose(1, 2).contiguous();
                 };
                 const at::Tensor q = heads(at::matmul(tokens, weight) * scale), k = heads(tokens),
                                  v = heads(tokens);
                 const at::Tensor out =
                     fused ? std::get<0>(at::_scaled_dot_product_flash_attention_for_cpu(q, k, v))
                           : at::scaled_dot_product_attention(q, k, v);
                 return (out - 0.3).square().sum();
               }),
        respond(std::move(method), 0.01));
    engine.add(
        "up",
        Lambda(scale, [this](const Batch&) { return (weight * weight).sum() + scale.square(); }),
        sgd());
  }
};

struct RestoreSwitches {
  std::vector<bool> before = attention_switches();
  ~RestoreSwitches() { set(before); }
  static void set(const std::vector<bool>& on) {
    at::globalContext().setSDPUseFlash(on[0]);
    at::globalContext().setSDPUseMemEfficient(on[1]);
    at::globalContext().setSDPUseMath(on[2]);
    at::globalContext().setSDPUseCuDNN(on[3]);
  }
};

}  // namespace

TEST_CASE("Second order through fused attention is refused at build",
          "[engine][methods][attention]") {
  const RestoreSwitches restore;
  for (const bool flash : {true, false}) {
    RestoreSwitches::set({flash, true, true, true});
    const auto before = attention_switches();
    const std::pair<const char*, MakeMethod> refused[] = {
        {"'identity × exact'", [] { return mlo::one_step(); }},
        {"'identity × exact'", [] { return mlo::one_step({.keep_graph = false}); }},
        {"'conjugate gradient × exact'", [] { return mlo::cg(); }},
        {"'unrolled × exact'", [] { return mlo::unrolled(); }},
    };
    for (const auto& [name, method] : refused) {
      Attention problem;
      Engine engine;
      problem.add_to(engine, method(), /*fused=*/true);
      check_refused<UnsupportedError>(
          [&] { engine.build(); }, {"level 'low'", name, "ScaledDotProductFlashAttentionForCpu",
                                    "twice", "at::scaled_dot_product_attention", "mlo::darts()"});
      CHECK(attention_switches() == before);
    }
    Attention problem;  // the cure by the method
    Engine engine;
    problem.add_to(engine, mlo::darts(), /*fused=*/true);
    CHECK_NOTHROW(engine.step());
    CHECK(attention_switches() == before);
  }
}

TEST_CASE("Attention by LibTorch's own choice works in second order and in first",
          "[engine][methods][attention]") {
  const RestoreSwitches restore;
  RestoreSwitches::set({true, true, true, false});
  const auto before = attention_switches();
  const auto hypergradient = [&](std::unique_ptr<mlo::Method> method, bool second_order) {
    Attention problem;
    Engine engine;
    problem.add_to(engine, std::move(method), /*fused=*/false);
    engine.build();
    CHECK(attention_switches() == before);
    problem.switches.clear();
    const double g = engine.hypergradient("up")[0].item<double>();
    CHECK(attention_switches() == before);
    // The last evaluation is that whose second derivatives are taken, if any.
    REQUIRE_FALSE(problem.switches.empty());
    CHECK(problem.switches.back()[0] == !second_order);
    CHECK(problem.switches.back()[1] == !second_order);
    return g;
  };
  const double exact = hypergradient(mlo::one_step(), true);
  CHECK(std::abs(exact - 2.0) > 1e-3);  // more than the direct term
  CHECK(hypergradient(mlo::one_step({.keep_graph = false}), true) == Approx(exact).epsilon(1e-12));
  CHECK(hypergradient(mlo::darts(), false) == Approx(exact).epsilon(1e-7));
}

TEST_CASE(
    "An operation without a second derivative is refused by the exact oracle with the way out",
    "[engine][methods]") {
  const auto add = [](Engine& engine, const at::Tensor& x, const at::Tensor& y,
                      std::unique_ptr<mlo::Method> method) {
    engine.add("low",
               Lambda(x,
                      [=](const Batch&) {
                        const at::Tensor image =
                            at::linspace(0.0, 1.0, 16, at::kDouble).square().reshape({1, 1, 4, 4});
                        const at::Tensor grid = (x * y).tanh().reshape({1, 1, 1, 2});
                        return at::grid_sampler_2d(image, grid, 0, 0, true).sum();
                      }),
               respond(std::move(method), 0.01));
    engine.add("up", lead(y, x), sgd());
  };
  for (const bool keep : {true, false}) {
    const at::Tensor x = leaf({0.3, 0.2}), y = leaf({0.5, 0.5});
    Engine engine;
    add(engine, x, y, mlo::one_step({.keep_graph = keep}));
    check_refused<UnsupportedError>(
        [&] { engine.step(); },
        {"level 'low'", "exact oracle", "second time", "grid_sampler_2d_backward", "mlo::darts()"});
    CHECK(same_bits(y, leaf({0.5, 0.5})));
  }
  Engine cured;
  add(cured, leaf({0.3, 0.2}), leaf({0.5, 0.5}), mlo::darts());
  CHECK_NOTHROW(cured.step());
}

TEST_CASE("A Neumann series that overshoots is an error, not a result", "[engine][methods]") {
  const at::Tensor x = leaf({0.2, 0.3}), y = leaf({0.5, 0.4});
  Engine engine;
  engine.add("low", follow(x, y), respond(mlo::neumann({.iterations = 20, .step = 2.5})));
  engine.add("up", lead(y, x), sgd());
  check_refused<mlo::Error>([&] { engine.step(); }, {"level 'low'", "Neumann series diverges",
                                                     "step = 2.5", "0 to have it estimated"});
}
