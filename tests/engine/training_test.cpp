// One level's own training: the optimizer, what it is given, and what a schedule, accumulation and
// clipping make of it.
#include "engine/support.h"

#include <torch/nn/modules/linear.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

namespace {

struct SmallNetImpl final : torch::nn::Module {
  SmallNetImpl() {
    first = register_module("first", torch::nn::Linear(5, 7));
    last = register_module("last", torch::nn::Linear(7, 1));
  }
  at::Tensor forward(const at::Tensor& x) { return last(at::tanh(first(x))); }
  torch::nn::Linear first{nullptr}, last{nullptr};
};
TORCH_MODULE(SmallNet);

SmallNet same_net() {
  at::manual_seed(11);
  return SmallNet();
}

using Optimizer = std::shared_ptr<torch::optim::Optimizer>;
struct Choice {
  const char* name;
  std::function<mlo::OptimizerFactory(const Tensors&)> ours;
  std::function<Optimizer(const Tensors&)> theirs;
};

template <class T, class Options>
Choice used(const char* name, const Options& options) {
  const auto make = [options](const Tensors& parameters) {
    return std::make_shared<T>(parameters, options);
  };
  return {name, [=](const Tensors& parameters) { return mlo::use(make(parameters)); }, make};
}

// The library's own: fused kernels round otherwise than LibTorch's loops
// (tests/optim/fused_test.cpp), so by hand takes them too.
Choice made(const char* name, const mlo::OptimizerFactory& factory) {
  return {name, [=](const Tensors&) { return factory; }, factory};
}

}  // namespace

TEST_CASE("One level alone trains as the same loop by hand does, bit for bit",
          "[engine][training]") {
  namespace optim = torch::optim;
  const Choice choices[] = {
      made("SGD with momentum",
           mlo::sgd({.lr = 0.05, .momentum = 0.9, .weight_decay = 1e-3, .nesterov = true})),
      made("Adam", mlo::adam({.lr = 0.01, .weight_decay = 1e-2})),
      made("AdamW", mlo::adamw({.lr = 0.01, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.1})),
      used<optim::SGD>("LibTorch's SGD",
                       optim::SGDOptions(0.05).momentum(0.9).weight_decay(1e-3).nesterov(true)),
      used<optim::AdamW>("LibTorch's AdamW",
                         optim::AdamWOptions(0.01).betas({0.9, 0.95}).eps(1e-6).weight_decay(0.1)),
      used<optim::RMSprop>("RMSprop", optim::RMSpropOptions(0.01).momentum(0.5).centered(true)),
      used<optim::Adagrad>("Adagrad", optim::AdagradOptions(0.05)),
  };
  at::manual_seed(5);
  const at::Tensor x = at::randn({64, 5}), y = at::randn({64, 1});
  for (const auto& [name, ours, theirs] : choices) {
    INFO(name);
    SmallNet by_hand = same_net();
    const auto optimizer = theirs(by_hand->parameters());
    std::vector<double> losses;
    for (int64_t step = 0; step < 25; ++step) {
      const at::Tensor xs = x.narrow(0, 8 * (step % 8), 8), ys = y.narrow(0, 8 * (step % 8), 8);
      optimizer->zero_grad();
      const at::Tensor loss = at::mse_loss(by_hand(xs), ys);
      loss.backward();
      optimizer->step();
      losses.push_back(loss.item<double>());
    }

    SmallNet net = same_net();
    Engine engine({.steps = 25});
    engine.add(
        "net",
        Lambda(mlo::trains(net),
               [net](const Batch& batch) mutable { return at::mse_loss(net(batch[0]), batch[1]); }),
        {.optimizer = ours(net->parameters()),
         .data = mlo::tensor_source({x, y}, {.batch_size = 8, .shuffle = false})});
    const auto watch = std::make_shared<Watch>();
    std::vector<double> ours_losses;
    watch->step = [&](const mlo::StepReport& report) {
      ours_losses.push_back(report.losses()[0].second);
    };
    engine.add(watch);
    CHECK(engine.run().reason == mlo::RunSummary::Reason::steps);
    CHECK(same_bits(net->parameters(), by_hand->parameters()));
    CHECK(ours_losses == losses);
    CHECK_FALSE(same_bits(net->parameters(), same_net()->parameters()));
  }
}

TEST_CASE("The optimizer sees the schedule's learning rates, each group its own",
          "[engine][training][schedule]") {
  const at::Tensor a = leaf(1.0), b = leaf(2.0);
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(Tensors{a}, std::make_unique<torch::optim::SGDOptions>(0.5));
  groups.emplace_back(Tensors{b},
                      std::make_unique<torch::optim::SGDOptions>(
                          torch::optim::SGDOptions(0.2).momentum(0.9).weight_decay(0.01)));
  const auto optimizer = std::make_shared<torch::optim::SGD>(groups, torch::optim::SGDOptions(1.0));
  const auto schedule = mlo::cosine({.steps = 6, .warmup = 2, .final_factor = 0.1});

  Lambda problem(mlo::trains(a, b), [=](const Batch&) { return a + b; });
  std::vector<double> seen_a, seen_b, moved;
  double last = a.item<double>();
  problem.step_hook = [&] {
    seen_a.push_back(optimizer->param_groups()[0].options().get_lr());
    seen_b.push_back(optimizer->param_groups()[1].options().get_lr());
    moved.push_back(last - a.item<double>());
    last = a.item<double>();
  };
  Engine engine({.steps = 8});
  engine.add("only", std::move(problem), {.optimizer = mlo::use(optimizer), .schedule = schedule});
  engine.run();
  REQUIRE(seen_a.size() == 8);
  for (int64_t step = 0; step < 8; ++step) {
    const auto i = static_cast<std::size_t>(step);
    CHECK(seen_a[i] == 0.5 * schedule(step));
    CHECK(seen_b[i] == 0.2 * schedule(step));
    CHECK(moved[i] == Approx(0.5 * schedule(step)));  // the gradient is 1
  }
  CHECK(schedule(0) == 0.5);
  CHECK(seen_a.back() == 0.05);

  // Nothing else of the groups has been touched.
  REQUIRE(optimizer->param_groups().size() == 2);
  CHECK(optimizer->param_groups()[0].params()[0].is_same(a));
  CHECK(optimizer->param_groups()[1].params()[0].is_same(b));
  const auto& second =
      static_cast<const torch::optim::SGDOptions&>(optimizer->param_groups()[1].options());
  CHECK(second.momentum() == 0.9);
  CHECK(second.weight_decay() == 0.01);
}

TEST_CASE("Without a schedule learning rates are the user's to change",
          "[engine][training][schedule]") {
  const at::Tensor a = leaf(1.0);
  const auto optimizer = std::make_shared<torch::optim::SGD>(Tensors{a}, 0.5);
  Lambda problem(a, [=](const Batch&) { return a * 1.0; });
  problem.gradient_hook = [&](Tensors&) { optimizer->param_groups()[0].options().set_lr(0.125); };
  Engine engine;
  engine.add("only", std::move(problem), {.optimizer = mlo::use(optimizer)});
  engine.step();
  CHECK(a.item<double>() == 1.0 - 0.125);
}

TEST_CASE("A schedule that gives no number is refused by level and step",
          "[engine][training][schedule]") {
  for (const double factor : {double{NAN}, double{INFINITY}, -1.0}) {
    const at::Tensor a = leaf(1.0);
    Engine engine;
    engine.add("only", alone(leaf(0.5)), {.optimizer = mlo::sgd(), .schedule = [=](int64_t step) {
                                            return step < 2 ? 1.0 : factor;
                                          }});
    engine.step();
    engine.step();
    check_refused<mlo::ConfigError>([&] { engine.step(); },
                                    {"level 'only' at step 2", "schedule", "finite", "at least 0"});
    CHECK(engine.counters("only").steps == 2);
  }
}

TEST_CASE("Accumulation is the mean over the micro-batches, in step and hypergradient",
          "[engine][training][accumulate]") {
  at::manual_seed(3);
  const at::Tensor data = at::randn({12, 3}, at::kDouble), target = at::randn({12}, at::kDouble);
  const auto fresh = mlo::ExactOptions{.keep_graph = false};
  const std::pair<const char*, std::function<std::unique_ptr<mlo::Method>()>> methods[] = {
      {"kept graph", [] { return mlo::one_step(); }},
      {"fresh graph", [=] { return mlo::one_step(fresh); }},
      {"differences", [] { return mlo::darts(); }},
      {"conjugate gradient", [] { return mlo::cg({.max_iterations = 3, .tolerance = 1e-14}); }},
      {"unrolled", [] { return mlo::unrolled(); }},
  };
  for (const auto& [name, method] : methods) {
    INFO(name);
    const auto run = [&](int64_t accumulate, Tensors* parameters) {
      const at::Tensor x = leaf({0.1, 0.2, 0.3}), y = leaf({0.5, -0.4, 0.3});
      const auto source = [&](const at::Tensor& rows, const at::Tensor& labels) {
        return mlo::tensor_source({rows, labels},
                                  {.batch_size = 12 / accumulate, .shuffle = false});
      };
      Engine engine;
      engine.add("low",
                 Lambda(x,
                        [=](const Batch& batch) {
                          return at::softplus(at::matmul(batch[0], x * y) - batch[1]).mean() +
                                 0.5 * x.square().sum();
                        }),
                 {.optimizer = mlo::sgd({.lr = 0.1, .momentum = 0.5}),
                  .data = source(data, target),
                  .unroll = 2,
                  .best_response = method(),
                  .accumulate = accumulate});
      engine.add("up",
                 Lambda(y,
                        [=](const Batch& batch) {
                          return (at::matmul(batch[0], x) - y.sum()).square().mean();
                        }),
                 {.optimizer = mlo::sgd({.lr = 0.1}),
                  .data = source(data.flip(0), target),
                  .accumulate = accumulate});
      engine.step();
      const Tensors g = copies(engine.hypergradient("up"));
      *parameters = copies({x, y});
      CHECK(engine.counters("low").steps == 4);
      return g;
    };
    Tensors whole, parts;
    const Tensors g = run(1, &whole), h = run(3, &parts);
    const double tolerance = std::string(name) == "differences" ? 1e-8 : 1e-12;
    CHECK(at::allclose(g[0], h[0], tolerance, 1e-15));
    for (std::size_t i = 0; i < 2; ++i) CHECK(at::allclose(whole[i], parts[i], tolerance, 1e-15));
  }
}

TEST_CASE("A single product holds the graph of one micro-batch at a time, several hold all",
          "[engine][training][accumulate]") {
  const auto most_alive = [](std::unique_ptr<mlo::Method> method) {
    const at::Tensor x = leaf({0.1, 0.2, 0.3}), y = leaf({0.5, -0.4, 0.3});
    std::vector<c10::weak_intrusive_ptr<c10::TensorImpl>>
        made;  // what the graph of each evaluation saves
    std::ptrdiff_t most = 0;
    Engine engine;
    engine.add(
        "low",
        Lambda(x,
               [&](const Batch& batch) {
                 const at::Tensor rows = batch[0].clone();
                 made.emplace_back(rows.getIntrusivePtr());
                 most = std::max(most, std::count_if(made.begin(), made.end(),
                                                     [](const auto& r) { return !r.expired(); }));
                 return at::softplus(at::matmul(rows, x * y)).mean() + 0.5 * x.square().sum();
               }),
        {.optimizer = mlo::sgd({.lr = 0.1}),
         .data = Batch{at::ones({2, 3}, at::kDouble)},
         .best_response = std::move(method),
         .accumulate = 4});
    engine.add("up", Lambda(y, [=](const Batch&) { return x.square().sum(); }),
               {.optimizer = mlo::sgd({.lr = 0.1})});
    engine.build();
    most = 0;
    engine.step();
    return most;
  };
  CHECK(most_alive(mlo::one_step({.keep_graph = false})) == 1);
  CHECK(most_alive(mlo::one_step()) == 4);
  CHECK(most_alive(mlo::cg({.max_iterations = 3, .tolerance = 1e-14})) == 4);
}

TEST_CASE("The loss reported is the mean over the micro-batches",
          "[engine][training][accumulate]") {
  const at::Tensor x = leaf(0.0);
  Engine engine;
  engine.add(
      "only", Lambda(x, [=](const Batch& batch) { return batch[0].sum() + x; }),
      {.optimizer = mlo::sgd(),
       .data = [](int64_t i) { return Batch{at::full({1}, static_cast<double>(i), at::kDouble)}; },
       .accumulate = 4});
  CHECK(std::isnan(engine.loss("only")));
  engine.step();
  CHECK(engine.loss("only") == 1.5);
}

TEST_CASE("A gradient beyond the largest norm is scaled down to it, others are left alone",
          "[engine][training][clip]") {
  for (const double scale : {1.0, 0.1}) {
    const at::Tensor a = leaf({3.0 * scale, 0.0}), b = leaf(4.0 * scale);
    Tensors seen;
    Lambda problem(mlo::trains(a, b),
                   [=](const Batch&) { return 0.5 * (a.square().sum() + b.square()); });
    problem.gradient_hook = [&](Tensors& gradient) { seen = copies(gradient); };
    Engine engine;
    engine.add("only", std::move(problem), {.optimizer = mlo::sgd({.lr = 1.0}), .clip_norm = 1.0});
    const Tensors before = copies({a, b});
    engine.step();
    const double factor = scale == 1.0 ? 1.0 / 5.0 : 1.0;
    CHECK(at::allclose(seen[0], factor * before[0], 1e-15));
    CHECK(at::allclose(seen[1], factor * before[1], 1e-15));
    CHECK(at::allclose(b, before[1] * (1.0 - factor), 1e-15, 1e-15));
    if (scale == 0.1) CHECK(same_bits(seen, before));
  }
}

TEST_CASE("A hook may change the gradient in place, and only its own", "[engine][training]") {
  const at::Tensor a = leaf({1.0, 2.0}), b = leaf(0.0);
  Lambda problem(mlo::trains(a, b),
                 [=](const Batch&) { return a.sum() + b; });  // expanded and shared gradients
  problem.gradient_hook = [](Tensors& gradient) {
    gradient[0][1] = 0.0;
    gradient[1].mul_(2.0);
  };
  Engine engine;
  engine.add("only", std::move(problem), sgd(0.5));
  engine.step();
  CHECK(same_bits(a, leaf({0.5, 2.0})));
  CHECK(b.item<double>() == -1.0);
}

TEST_CASE("Frozen parameters stay, whatever goes by", "[engine][training]") {
  torch::nn::Linear layer(3, 1);
  layer->to(at::kDouble);
  layer->bias.set_requires_grad(false);
  const at::Tensor y = leaf(0.5), bias = layer->bias.detach().clone(),
                   weight = layer->weight.detach().clone();
  for (const auto& method :
       {mlo::one_step, +[](mlo::ExactOptions, mlo::IdentityOptions) { return mlo::darts(); }}) {
    Engine engine;
    engine.add(
        "low",
        Lambda(mlo::trains(layer),
               [=](const Batch&) {
                 return (at::linear(at::ones({1, 3}, at::kDouble), layer->weight, layer->bias) - y)
                     .square()
                     .sum();
               }),
        {.optimizer = mlo::adamw({.lr = 0.1, .weight_decay = 0.5}),
         .best_response = method({}, {})});
    engine.add("up",
               Lambda(y,
                      [=](const Batch&) {
                        return (layer->weight.sum() + layer->bias.sum()).square() + y.square();
                      }),
               sgd());
    CHECK(engine.parameters("low").size() == 1);
    for (int i = 0; i < 3; ++i) engine.step();
    CHECK(same_bits(layer->bias, bias));
    CHECK_FALSE(layer->bias.requires_grad());
    CHECK_FALSE(same_bits(layer->weight, weight));
  }
}

TEST_CASE("Unused parameters stay, with and without levels below", "[engine][training]") {
  for (const bool below : {false, true}) {
    INFO((below ? "with a level below" : "alone"));
    const at::Tensor x = leaf(0.2), y = leaf(0.5), unused = leaf({3.0, 4.0});
    Engine engine;
    if (below) engine.add("low", follow(x, y), sgd());
    Lambda up(mlo::trains(y, unused),
              [=](const Batch&) { return (below ? x : y).square() + y.square(); });
    bool defined = true;
    up.gradient_hook = [&](Tensors& gradient) { defined = gradient[1].defined(); };
    // Weight decay would move a parameter with a gradient of zeros; torch skips one without a
    // gradient.
    engine.add("up", std::move(up), {.optimizer = mlo::adamw({.lr = 0.1, .weight_decay = 0.5})});
    for (int i = 0; i < 3; ++i) engine.step();
    CHECK_FALSE(defined);
    CHECK(same_bits(unused, leaf({3.0, 4.0})));
    CHECK(y.item<double>() != 0.5);
  }
}

TEST_CASE("A parameter of a lower level that nobody uses has no share", "[engine][training]") {
  const std::function<std::unique_ptr<mlo::Method>()> methods[] = {
      [] { return mlo::one_step(); }, [] { return mlo::one_step({.keep_graph = false}); },
      [] { return mlo::darts(); },    [] { return mlo::cg(); },
      [] { return mlo::neumann(); },  [] { return mlo::unrolled(); }};
  for (const auto& method : methods) {
    const auto gradient = [&](bool with_unused) {
      const at::Tensor x = leaf(0.2), y = leaf(0.5), unused = leaf({3.0, 4.0});
      Engine engine;
      auto trained = mlo::trains(x);
      if (with_unused) trained.add("unused", unused);
      engine.add("low", Lambda(trained, [=](const Batch&) { return 0.5 * (x - y).square(); }),
                 respond(method()));
      engine.add("up", lead(y, x), sgd());
      const double g = engine.hypergradient("up")[0].item<double>();
      CHECK(same_bits(unused, leaf({3.0, 4.0})));
      return g;
    };
    CHECK(gradient(true) == Approx(gradient(false)).epsilon(1e-9));
  }
}

TEST_CASE("Parameters that enter linearly have no second derivative, and that is no error",
          "[engine][training]") {
  const std::function<std::unique_ptr<mlo::Method>()> methods[] = {
      [] { return mlo::one_step(); }, [] { return mlo::one_step({.keep_graph = false}); },
      [] { return mlo::darts(); }, [] { return mlo::unrolled(); }};
  for (const auto& method : methods) {
    const at::Tensor x = leaf(0.2), y = leaf(0.5), c = leaf(1.0);
    Engine engine;
    // ∂²/∂y∂x = 1 by c·x·y with c = 1 held by y's level: the Hessian is zero, the mixed product is
    // not.
    engine.add("low", Lambda(x, [=](const Batch&) { return x * y; }), respond(method(), 0.25));
    engine.add("up", lead(y, x), sgd());
    CHECK(engine.hypergradient("up")[0].item<double>() ==
          Approx(0.05 - 0.25 * (0.2 - 0.25 * 0.5 - 1.0)).epsilon(1e-8));
    // Nothing mixed at all: x and y enter separately, so only declared reads bring the sweep here.
    const at::Tensor u = leaf(0.2), v = leaf(0.5);
    Engine separate;
    separate.add("low", Lambda(u, [=](const Batch&) { return 2.0 * u + 3.0 * v; }),
                 respond(method(), 0.25));
    separate.add("up", lead(v, u), sgd());
    CHECK(separate.hypergradient("up")[0].item<double>() == Approx(0.05).epsilon(1e-8));
  }
}
