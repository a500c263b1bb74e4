// What `run` does around the steps: validation, early stopping, what it reports, and its random
// streams.
#include "engine/support.h"

#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>

#include <chrono>
#include <thread>

using mlo::ConfigError;
using Reason = mlo::RunSummary::Reason;

namespace {

/// A net with dropout and batch norm, whose input features are weighted by the level above.
struct WeightedNetImpl final : torch::nn::Module {
  WeightedNetImpl() {
    first = register_module("first", torch::nn::Linear(4, 6));
    norm = register_module("norm", torch::nn::BatchNorm1d(6));
    drop = register_module("drop", torch::nn::Dropout(0.25));
    last = register_module("last", torch::nn::Linear(6, 1));
  }
  at::Tensor forward(const at::Tensor& x) { return last(drop(norm(first(x)).tanh())); }
  torch::nn::Linear first{nullptr}, last{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::nn::Dropout drop{nullptr};
};
TORCH_MODULE(WeightedNet);

/// Two levels that draw at random in data, dropout and loss.
struct Noisy {
  WeightedNet net = (at::manual_seed(1), WeightedNet());
  at::Tensor weight = at::zeros({4}).requires_grad_();
  at::Tensor data = (at::manual_seed(2), at::randn({24, 4}));
  std::vector<double> drawn = {};  // in validations
  std::vector<double> low_losses = {};

  void add_to(Engine& engine, bool judged = false, bool top = false) {
    engine.add("low",
               Lambda(mlo::trains(net),
                      [this](const Batch& batch) {
                        return (net->forward(batch[0] * weight.sigmoid()) - batch[0].sum(1, true))
                            .square()
                            .mean();
                      }),
               {.optimizer = mlo::adamw({.lr = 0.01}),
                .data = mlo::tensor_source({data}, {.batch_size = 8}),
                .unroll = 2});
    Lambda up(weight, [this](const Batch& batch) {
      const at::Tensor noise = 0.01 * at::randn({batch[0].size(0), 1});
      return (net->forward(batch[0] * weight.sigmoid()) + noise).square().mean() +
             0.01 * weight.square().sum();
    });
    if (judged)
      up.judge = [this] {
        CHECK_FALSE(at::GradMode::is_enabled());
        CHECK_FALSE(net->is_training());
        CHECK_FALSE(net->drop->is_training());
        drawn.push_back(at::rand({}).item<double>());
        net->forward(data);
        return std::map<std::string, double>{{"drawn", drawn.back()}};
      };
    engine.add(
        "up", std::move(up),
        {.optimizer = mlo::adam({.lr = 0.05}),
         .data = [this](int64_t) { return Batch{data.index_select(0, at::randint(24, {8}))}; },
         .top = top});
  }
  Tensors all() const {
    Tensors result = net->parameters();
    result.push_back(weight);
    for (const auto& buffer : net->buffers()) result.push_back(buffer);
    return copies(result);
  }
};

Tensors trained(const EngineOptions& options, bool judged = false) {
  Noisy problem;
  Engine engine(options);
  problem.add_to(engine, judged);
  engine.run();
  return problem.all();
}

}  // namespace

TEST_CASE("Two runs of one seed are the same bit for bit, another seed is another run",
          "[engine][run][random]") {
  const Tensors first = trained({.steps = 6, .seed = 3});
  CHECK(same_bits(first, trained({.steps = 6, .seed = 3})));
  CHECK_FALSE(same_bits(first.front(), trained({.steps = 6, .seed = 4}).front()));
  CHECK_FALSE(same_bits(first.front(), trained({.steps = 5, .seed = 3}).front()));
}

TEST_CASE(
    "Every level, step and micro-batch draws numbers of its own, and a callback's draws are its "
    "own",
    "[engine][run][random]") {
  const auto draws = [](bool disturbed) {
    const at::Tensor x = leaf(0.2), y = leaf(0.5);
    std::vector<double> drawn;
    Engine engine({.steps = 3});
    engine.add("low",
               Lambda(x,
                      [&, x, y](const Batch&) {
                        drawn.push_back(at::rand({}).item<double>());
                        return 0.5 * (x - y).square() * (1.0 + drawn.back());
                      }),
               {.optimizer = mlo::sgd(), .unroll = 2, .accumulate = 3});
    engine.add("up",
               Lambda(y,
                      [&, x, y](const Batch&) {
                        drawn.push_back(at::rand({}).item<double>());
                        return (x - 1.0).square() + y.square() * drawn.back();
                      }),
               sgd());
    engine.build();
    drawn.clear();
    const auto watch = std::make_shared<Watch>();
    if (disturbed) watch->step = [](const mlo::StepReport&) { at::manual_seed(0); };
    engine.add(watch);
    engine.run();
    return drawn;
  };
  auto drawn = draws(false);
  CHECK(draws(true) == drawn);
  CHECK(drawn.size() == 3 * (2 * 3 + 1));
  std::sort(drawn.begin(), drawn.end());
  CHECK(std::adjacent_find(drawn.begin(), drawn.end()) == drawn.end());
}

TEST_CASE("A level more does not change the others' random streams", "[engine][run][random]") {
  const auto run = [](bool stranger, bool first) {
    Noisy problem, other;
    Engine engine({.steps = 4});
    const auto add = [&] {
      engine.add(
          "stranger",
          Lambda(mlo::trains(other.net),
                 [&](const Batch& batch) { return other.net->forward(batch[0]).square().mean(); }),
          {.optimizer = mlo::sgd(),
           .data = mlo::tensor_source({other.data}, {.batch_size = 8}),
           .top = true});
    };
    if (stranger && first) add();
    problem.add_to(engine, false, /*top=*/true);
    if (stranger && !first) add();
    engine.run();
    if (stranger) CHECK(engine.counters("stranger").steps == 4);
    return problem.all();
  };
  const Tensors without = run(false, false);
  CHECK(same_bits(without, run(true, true)));
  CHECK(same_bits(without, run(true, false)));
}

TEST_CASE("An engine leaves the caller's random stream alone", "[engine][run][random]") {
  const std::pair<const char*, std::function<void(Engine&)>> calls[] = {
      {"build", [](Engine& engine) { engine.build(); }},
      {"run", [](Engine& engine) { engine.run(); }},
      {"step", [](Engine& engine) { engine.step(); }},
      {"hypergradient", [](Engine& engine) { engine.hypergradient("up"); }},
      {"validate", [](Engine& engine) { engine.validate(); }},
      {"check",
       [](Engine& engine) {
         mlo::check_hypergradient(engine, {.directions = 2, .resolve_steps = 2});
       }},
      {"state", [](Engine& engine) { engine.load_state(engine.state()); }},
  };
  for (const auto& [name, call] : calls) {
    INFO(name);
    Noisy problem;
    Engine engine({.steps = 3, .validate_every = 2});
    problem.add_to(engine, true);
    at::manual_seed(99);
    const at::Tensor expected = at::randn({5});
    at::manual_seed(99);
    call(engine);
    CHECK(same_bits(at::randn({5}), expected));
  }
}

TEST_CASE("Validation happens in eval mode, without gradients, and does not touch training",
          "[engine][run][validation]") {
  const Tensors without = trained({.steps = 6});
  for (const int64_t every : {1, 2}) {
    Noisy problem;
    Engine engine({.steps = 6, .validate_every = every});
    problem.add_to(engine, true);
    const auto watch = std::make_shared<Watch>();
    std::vector<int64_t> steps;
    watch->validation = [&](const mlo::ValidationReport& report) {
      steps.push_back(report.step);
      CHECK(report.metrics.size() == 1);
      CHECK(report.metrics.at("up.drawn") == problem.drawn.back());
      CHECK_FALSE(report.best);
    };
    engine.add(watch);
    problem.net->train();
    engine.run();
    CHECK(problem.net->is_training());
    CHECK(problem.net->drop->is_training());
    CHECK(same_bits(problem.all(), without));
    CHECK(steps ==
          (every == 1 ? std::vector<int64_t>{1, 2, 3, 4, 5, 6} : std::vector<int64_t>{2, 4, 6}));
    CHECK(problem.drawn[0] != problem.drawn[1]);  // a stream of each step's own
    CHECK(engine.validate() ==
          std::map<std::string, double>{{"up.drawn", problem.drawn.at(steps.size() - 1)}});
  }
}

TEST_CASE("Early stopping waits for its patience, by the smallest change that counts",
          "[engine][run][early stopping]") {
  using Mode = mlo::EarlyStopping::Mode;
  struct Case {
    mlo::EarlyStopping rule;
    std::vector<double> values;
    int64_t steps;
    std::vector<bool> best;
  };
  const Case cases[] = {
      {{.metric = "only.error", .patience = 2}, {3, 2, 2.5, 2, 1}, 4, {true, true, false, false}},
      {{.metric = "only.error", .patience = 1}, {3, 2, 1, 1, 0}, 4, {true, true, true, false}},
      {{.metric = "only.error", .patience = 2, .min_delta = 0.1},
       {3, 2.95, 2.89, 2.85, 2.8, 1},
       5,
       {true, false, true, false, false}},
      {{.metric = "only.error", .patience = 2, .mode = Mode::max},
       {1, 2, 3, 2.9, 3, 9},
       5,
       {true, true, true, false, false}},
      {{.metric = "only.error", .patience = 1, .mode = Mode::max, .min_delta = 0.5},
       {1, 1.6, 2.0, 9},
       3,
       {true, true, false}},
      {{.metric = "only.error", .patience = 3},
       {6, 5, 4, 3, 2, 1},
       6,
       {true, true, true, true, true, true}},
  };
  for (const auto& [rule, values, steps, best] : cases) {
    Engine engine({.steps = 12, .validate_every = 2, .early_stopping = rule});
    Lambda only = alone(leaf());
    std::size_t next = 0;
    only.judge = [&, &values = values] {
      return std::map<std::string, double>{{"error", values.at(next++)}};
    };
    engine.add("only", std::move(only), sgd());
    const auto watch = std::make_shared<Watch>();
    std::vector<bool> seen;
    watch->validation = [&](const mlo::ValidationReport& report) { seen.push_back(report.best); };
    engine.add(watch);
    const auto summary = engine.run();
    CHECK(summary.steps == 2 * steps);
    CHECK(summary.reason == (steps == 6 ? Reason::steps : Reason::early_stopping));
    CHECK(seen == best);
    CHECK(watch->stops ==
          std::vector<std::string>{steps == 6 ? "all steps taken" : "no improvement"});
    CHECK(engine.run().steps == 2 * steps);  // and stays stopped
  }
}

TEST_CASE("An early-stopping metric that is missing or not a number is refused",
          "[engine][run][early stopping]") {
  const auto run = [](double value) {
    Engine engine({.steps = 3, .validate_every = 1, .early_stopping = {.metric = "only.error"}});
    Lambda only = alone(leaf());
    only.judge = [=] {
      return std::map<std::string, double>{{value > 0.0 ? "loss" : "error", value}};
    };
    engine.add("only", std::move(only), sgd());
    engine.run();
  };
  check_refused<ConfigError>([&] { run(1.0); },
                             {"EarlyStopping::metric", "'only.error'", "returned: 'only.loss'"});
  check_refused<mlo::NonFiniteError>([&] { run(NAN); },
                                     {"validation at step 1", "'only.error'", "not a number"});
}

TEST_CASE(
    "A level that has diverged by its last step is no run that has ended well, and is not saved",
    "[engine][run]") {
  const TemporaryFolder folder;
  for (const bool saving : {false, true}) {
    const at::Tensor x = leaf({3.0, 2.0}), y = leaf(0.5);
    Engine engine({.steps = 3,
                   .checkpoint = saving ? folder / "run.mlo" : "",
                   .checkpoint_every = saving ? 1 : 0});
    std::string before;
    Lambda low = follow(x, y);
    low.step_hook = [&, x] {
      const at::NoGradGuard no_grad;
      if (engine.steps_taken() == 2) x[1] = INFINITY;
      if (engine.steps_taken() == 2 && saving) before = read_bytes(folder / "run.mlo");
    };
    engine.add("low", std::move(low), sgd());
    auto watch = std::make_shared<Watch>();
    engine.add(watch);
    check_refused<mlo::NonFiniteError>(
        [&] { engine.run(); },
        {"level 'low' at step 3", "'parameter0' is not finite", "lower the learning rate"});
    CHECK(watch->stops.empty());
    CHECK(before.empty() != saving);
    if (saving) CHECK(read_bytes(folder / "run.mlo") == before);
    check_refused<mlo::NonFiniteError>([&] { engine.save(folder / "other.mlo"); },
                                       {"'parameter0'"});
    CHECK_FALSE(std::filesystem::exists(folder / "other.mlo"));
    CHECK_NOTHROW(engine.state());
  }
  // Nor is it validated: what fails there could not say why.
  int64_t validations = 0;
  const at::Tensor x = leaf(1.0);
  Lambda level = alone(x);
  level.step_hook = [x] {
    const at::NoGradGuard no_grad;
    x.fill_(NAN);
  };
  level.judge = [&] {
    ++validations;
    return std::map<std::string, double>{};
  };
  Engine engine({.steps = 3, .validate_every = 1});
  engine.add("level", std::move(level), sgd());
  check_refused<mlo::NonFiniteError>([&] { engine.run(); },
                                     {"level 'level' at step 1", "'parameter0' is not finite"});
  CHECK(validations == 0);
}

TEST_CASE("Losses and metrics of all levels can be asked for", "[engine][run]") {
  const at::Tensor x = leaf(3.0), y = leaf(0.5);
  Engine engine;
  engine.add("low",
             Lambda(x,
                    [=](const Batch&) -> Evaluation {
                      return {0.5 * (x - y).square(), {{"x", x.detach()}, {"attached", x * 2.0}}};
                    }),
             sgd());
  engine.add("up", lead(y, x), sgd());
  CHECK(std::isnan(engine.loss("low")));
  CHECK(engine.metrics().empty());
  engine.step();
  CHECK(engine.loss("low") == Approx(0.5 * 2.5 * 2.5));
  using Metrics = std::vector<std::pair<std::string, double>>;
  CHECK(engine.metrics() == Metrics{{"low.x", x.item<double>()}, {"low.attached", 6.0}});
}

TEST_CASE("A profile gives each level its own seconds and peak memory", "[engine][run][profile]") {
  for (const bool profile : {false, true}) {
    const at::Tensor x = leaf(3.0), y = leaf(0.5);
    Engine engine({.steps = 3, .profile = profile});
    engine.add("low",
               Lambda(x,
                      [=](const Batch&) {
                        std::this_thread::sleep_for(std::chrono::milliseconds(40));
                        return 0.5 * (x - y).square() +
                               0.0 * at::ones({8 << 20}, at::kDouble).sum();  // 64 MiB
                      }),
               sgd());
    engine.add("up", lead(y, x), sgd());
    engine.run();
    const auto& low = engine.counters("low");
    const auto& up = engine.counters("up");
    if (!profile) {
      CHECK(low.seconds == 0.0);
      CHECK(low.peak_bytes == 0);
      continue;
    }
    CHECK(low.seconds >= 0.12);
    CHECK(up.seconds > 0.0);
    CHECK(up.seconds < low.seconds);  // without what it waits for
    CHECK(low.peak_bytes >= 60 << 20);
  }
}

TEST_CASE("Counters count what every level did", "[engine][run]") {
  const auto run = [](std::unique_ptr<mlo::Method> method) {
    const at::Tensor x = leaf(3.0), y = leaf(0.5);
    Engine engine;
    engine.add("low", follow(x, y),
               {.optimizer = mlo::sgd(), .unroll = 2, .best_response = std::move(method)});
    engine.add("up", lead(y, x), sgd());
    for (int i = 0; i < 3; ++i) engine.step();
    const auto& up = engine.counters("up");
    CHECK(std::vector<int64_t>{up.steps, up.forwards, up.backwards, up.visits, up.hessian_products,
                               up.mixed_products} == std::vector<int64_t>{3, 3, 3, 0, 0, 0});
    const auto& low = engine.counters("low");
    return std::vector<int64_t>{low.steps,  low.forwards,         low.backwards,
                                low.visits, low.hessian_products, low.mixed_products};
  };
  // Six own steps; then per hypergradient what the headers say of each oracle.
  CHECK(run(mlo::one_step()) == std::vector<int64_t>{6, 6, 6 + 3, 3, 0, 3});
  CHECK(run(mlo::one_step({.keep_graph = false})) ==
        std::vector<int64_t>{6, 6 + 3, 6 + 6, 3, 0, 3});
  // And a second radius at the second visit.
  CHECK(run(mlo::darts()) == std::vector<int64_t>{6, 6 + 6 + 2, 6 + 6 + 2, 3, 0, 3});
  CHECK(run(mlo::neumann({.iterations = 4, .step = 0.5})) ==
        std::vector<int64_t>{6, 6, 6 + 3 * 5, 3, 3 * 4, 3});
  CHECK(run(mlo::unrolled()) == std::vector<int64_t>{6, 6 + 6, 6 + 12, 3, 3, 6});
}

TEST_CASE("A hypergradient far below the optimizer's eps is warned of, once",
          "[engine][run][warnings]") {
  const auto warnings = [](double eps, bool below) {
    const at::Tensor x = leaf(0.2), y = leaf({0.5, 0.4});
    Engine engine({.steps = 250});
    if (below)
      engine.add("low", Lambda(x, [=](const Batch&) { return 0.5 * (x - y.sum()).square(); }),
                 sgd(0.01));
    engine.add("up",
               Lambda(y,
                      [=](const Batch&) {
                        return below ? 1e-7 * (x - 1.0).square() : 1e-7 * y.square().sum();
                      }),
               {.optimizer = mlo::adam({.lr = 1e-4, .eps = eps})});
    const auto watch = std::make_shared<Watch>();
    engine.add(watch);
    engine.run();
    return watch->warnings;
  };
  const auto warned = warnings(1e-8, true);
  REQUIRE(warned.size() == 1);
  CHECK_THAT(warned[0], Contains("level 'up'") && Contains("hypergradient's root mean square") &&
                            Contains("eps = 1e-08") && Contains("smaller eps"));
  CHECK(warnings(1e-13, true).empty());
  CHECK(warnings(1e-8, false).empty());  // a plain gradient is the user's own business
}

TEST_CASE("A summary says how the run ended and what each level has done", "[engine][run]") {
  const at::Tensor x = leaf({0.2, 0.1}), y = leaf({0.5, 0.4});
  Engine engine({.steps = 3});
  engine.add("low", Lambda(x, [=](const Batch&) { return 0.5 * (x - y).square().sum(); }),
             {.optimizer = mlo::sgd({.lr = 0.1}), .unroll = 2, .best_response = mlo::cg()});
  engine.add("upper", Lambda(y, [=](const Batch&) { return (x - 1.0).square().sum(); }), sgd(0.1));
  const mlo::RunSummary summary = engine.run();
  REQUIRE(summary.levels.size() == 2);
  CHECK(summary.levels[0].name == "low");
  CHECK(summary.levels[0].counters.steps == 6);
  CHECK(summary.levels[1].loss == engine.loss("upper"));
  CHECK(summary.levels[0].solve.reason == mlo::SolveSummary::Reason::converged);
  const std::string text = summary.to_string();
  INFO(text);
  CHECK_THAT(text, Catch::Matchers::StartsWith("all steps taken: 3 steps, "));
  std::istringstream lines(text);
  std::vector<std::string> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(line);
  REQUIRE(rows.size() == 4);
  CHECK_THAT(rows[1], Contains("level") && Contains("mixed") && Contains("last solve") &&
                          !Contains("seconds"));
  CHECK_THAT(rows[2], Contains("upper") && !Contains("after"));
  CHECK_THAT(rows[3], Contains("low") && Contains("converged after"));
  CHECK(mlo::RunSummary{}.to_string() == "all steps taken: 0 steps, 0 s\n");
  CHECK(mlo::RunSummary{
            .reason = Reason::time, .steps = 7, .seconds = 1.25, .levels = {{.name = "a"}}}
            .to_string() ==
        "time is up: 7 steps, 1.25 s\n"
        "  level  loss  steps  forwards  backwards  Hessian  mixed  last solve\n"
        "  a       nan      0         0          0        0      0\n");
}
