// What an engine refuses before it takes a step: levels that cannot go together, and options out of
// range.
#include "engine/support.h"

#include <torch/nn/modules/linear.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/lbfgs.h>

using mlo::ConfigError;

TEST_CASE("Declared orders that contradict each other are refused by name", "[engine][levels]") {
  const at::Tensor x = leaf(), y = leaf(), z = leaf();
  Engine engine;
  engine.add("a", alone(x), {.optimizer = mlo::sgd(), .below = {"b"}});
  engine.add("b", alone(y), {.optimizer = mlo::sgd(), .below = {"c"}});
  engine.add("c", alone(z), {.optimizer = mlo::sgd(), .below = {"a"}});
  for (int again = 0; again < 2; ++again)
    check_refused<ConfigError>(
        [&] { engine.run(); },
        {"'a' above 'b'", "'b' above 'c'", "'c' above 'a'", "contradict", "take out one"});
  CHECK(engine.level_names().size() == 3);

  Engine itself;
  itself.add("a", alone(x), {.optimizer = mlo::sgd(), .below = {"a"}});
  check_refused<ConfigError>([&] { itself.build(); }, {"'a'", "LevelOptions::below", "itself"});

  Engine unknown;
  unknown.add("a", alone(x), {.optimizer = mlo::sgd(), .below = {"nobody"}});
  check_refused<ConfigError>([&] { unknown.build(); }, {"'nobody'", "'a'"});
}

TEST_CASE("A declared order puts levels where registration did not", "[engine][levels]") {
  const at::Tensor x = leaf(), y = leaf(0.5);
  Engine engine;
  engine.add("up", lead(y, x), {.optimizer = mlo::sgd(), .below = {"low"}});
  engine.add("low", follow(x, y), {.optimizer = mlo::sgd(), .unroll = 3});
  engine.step();
  CHECK(engine.level_names() == std::vector<std::string>{"low", "up"});
  CHECK(engine.counters("low").steps == 3);
  CHECK(engine.counters("up").steps == 1);
  CHECK(engine.graph().nodes[1].top);
}

TEST_CASE("Two levels of one name, or with one parameter, are refused by name",
          "[engine][levels]") {
  const at::Tensor x = leaf(), y = leaf();
  Engine engine;
  engine.add("low", alone(x), sgd());
  check_refused<ConfigError>([&] { engine.add("low", alone(y), sgd()); },
                             {"two levels are called 'low'", "must differ"});
  check_refused<ConfigError>(
      [&] {
        engine.add("up", Lambda(mlo::trains(y, x), [x](const Batch&) { return x.sum(); }), sgd());
      },
      {"'parameter1'", "'up'", "'low'", "'parameter0'", "belongs to one level"});
  torch::nn::Linear shared(2, 1);
  engine.add("net", Lambda(mlo::trains(shared), [=](const Batch&) { return shared->weight.sum(); }),
             sgd());
  check_refused<ConfigError>(
      [&] {
        engine.add("up", Lambda(shared->bias, [=](const Batch&) { return shared->bias.sum(); }),
                   sgd());
      },
      {"'parameter0'", "'up'", "'net'", "'bias'"});
  CHECK(engine.level_names() ==
        std::vector<std::string>{"low", "net"});  // nothing of what was refused stays

  torch::nn::Linear tied(2, 1);  // within one level a parameter may come twice; it is trained once
  const auto problem = engine.add(
      "tied",
      Lambda(mlo::trains(tied, tied->weight), [=](const Batch&) { return tied->weight.sum(); }),
      sgd());
  CHECK(engine.parameters("tied").size() == 2);
}

TEST_CASE("A level from which no top can be reached is refused, and says how to keep it",
          "[engine][levels]") {
  const at::Tensor x = leaf(), y = leaf();
  const auto with_top = [&](Engine& engine, bool top) {
    engine.add("stray", alone(x), {.optimizer = mlo::sgd(), .top = top});
    engine.add("last", alone(y), {.optimizer = mlo::sgd(), .top = top});
  };
  Engine engine;
  with_top(engine, false);
  check_refused<ConfigError>([&] { engine.build(); },
                             {"'stray'", "'last'", "no top level", "LevelOptions::top"});
  Engine both;
  with_top(both, true);
  both.step();
  CHECK(both.counters("stray").steps == 1);
  CHECK(both.counters("last").steps == 1);
}

TEST_CASE("What trains nothing is refused", "[engine][levels]") {
  Engine engine;
  torch::nn::Linear frozen(2, 1);
  for (auto& parameter : frozen->parameters()) parameter.set_requires_grad(false);
  const auto loss = [=](const Batch&) { return frozen->weight.sum(); };
  check_refused<ConfigError>(
      [&] { engine.add("head", Lambda(mlo::trains(frozen), loss), sgd()); },
      {"'head'", "no trainable parameters", "2 given", "requires_grad", "trains("});
  check_refused<ConfigError>([&] { engine.add("head", Lambda(mlo::Trains(), loss), sgd()); },
                             {"'head'", "0 given"});
  check_refused<ConfigError>([] { mlo::trains(torch::nn::Linear(nullptr)); },
                             {"module holder is empty", "construct the module"});
  check_refused<ConfigError>([] { mlo::trains(std::shared_ptr<torch::nn::Module>()); },
                             {"module holder is empty"});
  check_refused<ConfigError>(
      [] { mlo::trains(torch::nn::Linear(1, 1)).uses(torch::nn::Linear(nullptr)); },
      {"uses(", "empty"});
  check_refused<ConfigError>([] { mlo::trains(at::Tensor()); }, {"'parameter0'", "undefined"});
  check_refused<ConfigError>([] { mlo::trains(leaf() * 2.0); },
                             {"'parameter0'", "not a leaf", "detach().requires_grad_()"});
  CHECK(engine.level_names().empty());
}

TEST_CASE("What is no level, or comes too late, is refused", "[engine][levels]") {
  Engine engine;
  check_refused<ConfigError>([&] { engine.run(); }, {"no level", "Engine::add"});
  for (const std::string name : {"", "a/b", "a.b"})
    check_refused<ConfigError>([&] { engine.add(name, alone(leaf()), sgd()); },
                               {"'" + name + "'", "without '/' and '.'"});
  check_refused<ConfigError>([&] { engine.add("low", std::shared_ptr<Lambda>(), sgd()); },
                             {"'low'", "null"});
  check_refused<ConfigError>([&] { engine.add(std::shared_ptr<mlo::Callback>()); },
                             {"callback is null"});
  engine.add("low", alone(leaf()), sgd());
  check_refused<ConfigError>([&] { engine.counters("head"); }, {"'head'", "there are 'low'"});
  engine.build();
  check_refused<ConfigError>([&] { engine.add("late", alone(leaf()), sgd()); },
                             {"'late'", "has been built", "before the first step"});
  check_refused<ConfigError>([&] { engine.hypergradient("head"); }, {"'head'", "'low'"});
}

TEST_CASE("Declared reads and constants that make no sense are refused", "[engine][levels]") {
  const at::Tensor x = leaf(), y = leaf(0.5);
  const auto refused = [&](std::optional<std::vector<std::string>> reads,
                           std::vector<std::string> constant,
                           std::initializer_list<std::string> words) {
    Engine engine;
    engine.add(
        "low", follow(x, y),
        {.optimizer = mlo::sgd(), .reads = std::move(reads), .constant = std::move(constant)});
    engine.add("up", lead(y, x), sgd());
    check_refused<ConfigError>([&] { engine.build(); }, words);
  };
  refused(std::vector<std::string>{}, {},
          {"'low'", "'up'", "LevelOptions::reads does not name", "LevelOptions::constant"});
  refused(std::vector<std::string>{"up"}, {"up"},
          {"'low'", "'up'", "both read and constant", "choose one"});
  refused(std::vector<std::string>{"low", "up"}, {},
          {"'low'", "LevelOptions::reads", "not the level itself"});
  refused(std::nullopt, {"low"}, {"'low'", "::constant", "not the level itself"});
  refused(std::vector<std::string>{"down"}, {}, {"'down'", "'low', 'up'"});
  refused(std::nullopt, {"down"}, {"'down'", "'low', 'up'"});
}

TEST_CASE("Every option of a level out of range is refused by name and value",
          "[engine][options]") {
  const auto refused = [](const std::function<void(LevelOptions&)>& spoil,
                          std::initializer_list<std::string> words) {
    Engine engine;
    LevelOptions options = sgd();
    spoil(options);
    const at::Tensor x = leaf();
    check_refused<ConfigError>([&] { engine.add("head", alone(x), std::move(options)); }, words);
    CHECK(engine.level_names().empty());
  };
  const double infinity = std::numeric_limits<double>::infinity();
  refused([](auto& o) { o.optimizer = {}; }, {"'head'", "optimizer is missing", "mlo::sgd"});
  refused([](auto& o) { o.optimizer = [](const Tensors&) { return nullptr; }; },
          {"'head'", "optimizer", "returned nothing"});
  refused([](auto& o) { o.unroll = 0; }, {"'head'", "LevelOptions::unroll = 0", "at least 1"});
  refused([](auto& o) { o.unroll = -3; }, {"'head'", "LevelOptions::unroll = -3", "at least 1"});
  refused([](auto& o) { o.accumulate = 0; },
          {"'head'", "LevelOptions::accumulate = 0", "at least 1"});
  refused([](auto& o) { o.warmup_steps = -1; },
          {"'head'", "LevelOptions::warmup_steps = -1", "at least 0"});
  refused([](auto& o) { o.clip_norm = -0.5; },
          {"'head'", "LevelOptions::clip_norm = -0.5", "positive", "0 for no clipping"});
  refused([](auto& o) { o.clip_norm = NAN; }, {"'head'", "LevelOptions::clip_norm = nan"});
  refused([=](auto& o) { o.clip_norm = infinity; },
          {"'head'", "LevelOptions::clip_norm = inf", "finite"});
}

TEST_CASE("Every option of an engine out of range is refused by name and value",
          "[engine][options]") {
  const auto refused = [](EngineOptions options, std::initializer_list<std::string> words) {
    check_refused<ConfigError>([&] { Engine engine(options); }, words);
  };
  refused({.steps = -1}, {"EngineOptions::steps = -1", "at least 0"});
  refused({.validate_every = -2}, {"EngineOptions::validate_every = -2", "at least 0", "never"});
  refused({.seconds = 0.0}, {"EngineOptions::seconds = 0", "positive"});
  refused({.seconds = -1.5}, {"EngineOptions::seconds = -1.5"});
  refused({.seconds = NAN}, {"EngineOptions::seconds = nan"});
  refused({.validate_every = 1, .early_stopping = {.metric = "a.b", .patience = 0}},
          {"EarlyStopping::patience = 0", "at least 1"});
  refused({.validate_every = 1, .early_stopping = {.metric = "a.b", .min_delta = -0.25}},
          {"EarlyStopping::min_delta = -0.25", "at least 0"});
  refused({.validate_every = 1, .early_stopping = {.metric = "a.b", .min_delta = NAN}},
          {"EarlyStopping::min_delta = nan"});
  refused({.validate_every = 1, .early_stopping = {.metric = "a.b", .min_delta = INFINITY}},
          {"EarlyStopping::min_delta = inf"});
  refused({.early_stopping = {.metric = "a.b"}}, {"EarlyStopping::metric", "validate_every is 0"});
  refused({.checkpoint = "run.mlo", .checkpoint_every = -1},
          {"EngineOptions::checkpoint_every = -1", "at least 0"});
  refused({.checkpoint_every = 5}, {"checkpoint_every", "checkpoint names no file"});
  refused({.checkpoint = "run.mlo", .checkpoint_sink = {}},
          {"checkpoint_sink", "mlo::atomic_file"});
  CHECK_NOTHROW(Engine({.steps = 0}));
}

TEST_CASE("An early-stopping metric of no level is refused before the first step",
          "[engine][options]") {
  for (const std::string metric : {"loss", "head.loss", ".loss"}) {
    Engine engine({.steps = 100, .validate_every = 50, .early_stopping = {.metric = metric}});
    engine.add("low", alone(leaf()), sgd());
    check_refused<ConfigError>([&] { engine.run(); }, {"EarlyStopping::metric", "'" + metric + "'",
                                                       "'low'", "\"level.name\""});
    CHECK(engine.counters("low").steps == 0);
  }
}

TEST_CASE("Every option of methods, solvers and oracles out of range is refused by name and value",
          "[engine][options]") {
  const auto refused = [](const std::function<void()>& make,
                          std::initializer_list<std::string> words) {
    check_refused<ConfigError>(make, words);
  };
  refused([] { mlo::neumann({.iterations = -1}); },
          {"NeumannOptions", "iterations = -1", "at least 0"});
  refused([] { mlo::neumann({.step = -0.5}); },
          {"NeumannOptions", "step = -0.5", "positive", "0 to be estimated"});
  refused([] { mlo::neumann({.step = INFINITY}); }, {"NeumannOptions", "step = inf"});
  refused([] { mlo::neumann({.step = NAN}); }, {"NeumannOptions", "step = nan"});
  refused([] { mlo::neumann({.power_iterations = 0}); },
          {"NeumannOptions", "power_iterations = 0", "at least 1"});
  refused([] { mlo::cg({.max_iterations = 0}); },
          {"ConjugateGradientOptions", "max_iterations = 0", "at least 1"});
  refused([] { mlo::cg({.tolerance = -1.0}); },
          {"ConjugateGradientOptions", "tolerance = -1", "at least 0"});
  refused([] { mlo::cg({.tolerance = NAN}); }, {"ConjugateGradientOptions", "tolerance = nan"});
  refused([] { mlo::cg({.damping = -0.5}); },
          {"ConjugateGradientOptions", "damping = -0.5", "at least 0"});
  refused([] { mlo::cg({.damping = INFINITY}); },
          {"ConjugateGradientOptions", "damping = inf", "finite"});
  refused([] { mlo::one_step({}, {.scale = mlo::IdentityOptions::Scale::value, .value = 0.0}); },
          {"IdentityOptions", "value = 0", "positive"});
  refused([] { mlo::darts({}, {.value = NAN}); }, {"IdentityOptions", "value = nan", "finite"});
  refused([] { mlo::darts({.constant = -1e-3}); },
          {"FiniteDifferenceOptions", "constant = -0.001", "positive"});
  refused([] { mlo::darts({.constant = INFINITY}); },
          {"FiniteDifferenceOptions", "constant = inf"});
  refused([] { mlo::sama({.constant = NAN}); }, {"FiniteDifferenceOptions", "constant = nan"});
  refused([] { mlo::implicit(nullptr, mlo::neumann_solver()); },
          {"implicit(oracle, solver)", "null"});
  refused([] { mlo::implicit(mlo::exact_oracle(), nullptr); },
          {"implicit(oracle, solver)", "null"});

  Engine engine;
  engine.add("low", alone(leaf()), sgd());
  const auto check = [&](mlo::CheckOptions options, std::initializer_list<std::string> words) {
    refused([&] { mlo::check_hypergradient(engine, options); }, words);
  };
  check({.directions = 0}, {"CheckOptions", "directions = 0", "at least 1"});
  check({.radius = -1.0}, {"CheckOptions", "radius = -1", "positive"});
  check({.radius = INFINITY}, {"CheckOptions", "radius = inf"});
  check({.resolve_steps = -4}, {"CheckOptions", "resolve_steps = -4", "at least 0"});
  check({.level = "up"}, {"'up'", "'low'"});
}

TEST_CASE(
    "Every option of optimizers, schedules and sources out of range is refused by name and value",
    "[engine][options]") {
  const auto refused = [](const std::function<void()>& make,
                          std::initializer_list<std::string> words) {
    check_refused<ConfigError>(make, words);
  };
  refused([] { mlo::sgd({.lr = -0.1}); }, {"SgdOptions::lr", "-0.1"});
  refused([] { mlo::sgd({.lr = NAN}); }, {"SgdOptions::lr", "nan"});
  refused([] { mlo::sgd({.momentum = -0.5}); }, {"SgdOptions::momentum", "-0.5"});
  refused([] { mlo::sgd({.momentum = 0.9, .dampening = 1.5}); }, {"SgdOptions::dampening", "1.5"});
  refused([] { mlo::sgd({.weight_decay = -1.0}); }, {"SgdOptions::weight_decay", "-1"});
  refused([] { mlo::sgd({.nesterov = true}); }, {"SgdOptions::momentum", "nesterov"});
  refused([] { mlo::sgd({.momentum = 0.9, .dampening = 0.5, .nesterov = true}); },
          {"SgdOptions::dampening", "nesterov"});
  refused([] { mlo::adam({.lr = INFINITY}); }, {"AdamOptions::lr", "inf"});
  refused([] { mlo::adam({.beta1 = 1.0}); }, {"AdamOptions::beta1", "less than 1"});
  refused([] { mlo::adamw({.beta2 = -0.1}); }, {"AdamOptions::beta2", "-0.1"});
  refused([] { mlo::adamw({.eps = -1e-8}); }, {"AdamOptions::eps"});
  refused([] { mlo::adamw({.weight_decay = NAN}); }, {"AdamOptions::weight_decay", "nan"});
  refused([] { mlo::cosine({}); }, {"CosineOptions::steps", "0", "at least 1"});
  refused([] { mlo::cosine({.steps = 5, .warmup = 5}); },
          {"CosineOptions::warmup", "5", "less than steps"});
  refused([] { mlo::cosine({.steps = 5, .warmup = -1}); }, {"CosineOptions::warmup", "-1"});
  refused([] { mlo::cosine({.steps = 5, .final_factor = -0.5}); },
          {"CosineOptions::final_factor", "-0.5"});
  refused([] { mlo::step_decay({.every = 0}); }, {"StepDecayOptions::every", "0"});
  refused([] { mlo::step_decay({.factor = 0.0}); }, {"StepDecayOptions::factor", "0"});
  refused([] { mlo::linear_warmup(0); }, {"linear_warmup", "0"});
  refused([] { mlo::tensor_source({at::zeros({4})}, {.batch_size = -1}); },
          {"TensorSourceOptions::batch_size", "-1"});
  refused([] { mlo::tensor_source({at::zeros({4})}, {.batch_size = 5}); },
          {"batch_size = 5", "4 rows", "drop_last"});
  refused([] { mlo::tensor_source({at::zeros({0, 3})}); }, {"no rows", "[0, 3]"});
  refused([] { mlo::tensor_source({}); }, {"no tensors"});
  refused([] { mlo::Data data(std::unique_ptr<mlo::BatchSource>{}); },
          {"Data", "null", "leave .data out"});
  refused([] { mlo::Data data(Batch{}); }, {"Data", "no tensors"});
  refused([] { mlo::use(nullptr); }, {"use(optimizer)", "null"});

  const at::Tensor x = leaf(), stranger = leaf();
  Engine engine;
  refused(
      [&] {
        engine.add(
            "low", alone(x),
            {.optimizer = mlo::use(std::make_shared<torch::optim::Adagrad>(Tensors{stranger}))});
      },
      {"Adagrad", "missing is the level's parameter 0", "foreign", "exactly the parameters"});
  refused(
      [&] {
        engine.add("low", alone(x),
                   {.optimizer = mlo::use(std::make_shared<torch::optim::LBFGS>(Tensors{x}))});
      },
      {"LBFGS", "closure"});
}
