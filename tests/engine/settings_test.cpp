// A resumed run is the run that was saved, or every setting in which it differs is named; what is
// allowed to change counts.
#include "engine/support.h"

#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>

using mlo::CheckpointError;

namespace {

/// ½‖x∘b − y‖² of mini-batches b below, its optimum to be 1 above. All that a level can be given
/// may be changed before `make`.
struct Run {
  Run() {
    at::manual_seed(4);
    data = at::randn({12, 3}, at::kDouble);
    fit = {.optimizer = mlo::adamw({.lr = 0.01, .weight_decay = 0.1}), .unroll = 2};
    up = {.optimizer = mlo::sgd({.lr = 0.1, .momentum = 0.9})};
  }
  Engine& make() {
    engine = std::make_unique<Engine>(options);
    if (fit.data.empty()) fit.data = mlo::tensor_source({data}, source);
    Lambda below(mlo::trains(x, bias), [this](const Batch& batch) {
      return 0.5 * (batch[0] * (x - y) + bias).square().sum() + 0.1 * x.square().sum();
    });
    Lambda above = lead(y, x);
    above.judge = [this] {
      return std::map<std::string, double>{{"size", y.norm().item<double>()}};
    };
    engine->add("fit", std::move(below), std::move(fit));
    engine->add("up", std::move(above), std::move(up));
    return *engine;
  }
  State after(int64_t steps) {
    make();
    for (int64_t i = 0; i < steps; ++i) engine->step();
    return engine->state();
  }

  at::Tensor data, x = at::full({1, 3}, 0.5, at::kDouble).requires_grad_(),
                   y = leaf({0.1, 0.2, 0.3}), bias = leaf({0.0, 0.1, 0.2});
  EngineOptions options = {
      .steps = 4, .validate_every = 2, .early_stopping = {.metric = "up.size", .patience = 50}};
  mlo::TensorSourceOptions source = {.batch_size = 5, .drop_last = false};
  LevelOptions fit, up;
  std::unique_ptr<Engine> engine;
};

struct Change {
  std::string name, saved, here;
  std::function<void(Run&)> make;
};

const std::vector<Change>& changes() {
  const auto half = [](int64_t) { return 0.5; };
  static const std::vector<Change> all = {
      {"engine.seed", "0", "7", [](Run& r) { r.options.seed = 7; }},
      {"engine.early_stopping", "least up.size", "none",
       [](Run& r) { r.options.early_stopping = {}; }},
      {"engine.early_stopping", "least up.size", "largest up.size",
       [](Run& r) { r.options.early_stopping.mode = mlo::EarlyStopping::Mode::max; }},
      {"fit.optimizer",
       "torch::optim::AdamW (amsgrad false, betas (0.9, 0.999), eps 1e-08, groups 2, lr 0.01, "
       "weight_decay 0.1)",
       "torch::optim::Adam (",
       [](Run& r) { r.fit.optimizer = mlo::adam({.lr = 0.01, .weight_decay = 0.1}); }},
      {"fit.optimizer", "torch::optim::AdamW (",
       "torch::optim::SGD (dampening 0, groups 2, lr 0.01, momentum 0.9, nesterov false",
       [](Run& r) { r.fit.optimizer = mlo::sgd({.lr = 0.01, .momentum = 0.9}); }},
      {"up.optimizer", "torch::optim::SGD (", "torch::optim::Adam (",
       [](Run& r) { r.up.optimizer = mlo::adam(); }},
      {"fit.optimizer.lr", "0.01", "0.02",
       [](Run& r) { r.fit.optimizer = mlo::adamw({.lr = 0.02, .weight_decay = 0.1}); }},
      {"fit.optimizer.betas", "(0.9, 0.999)", "(0.9, 0.99)",
       [](Run& r) {
         r.fit.optimizer = mlo::adamw({.lr = 0.01, .beta2 = 0.99, .weight_decay = 0.1});
       }},
      {"fit.optimizer.eps", "1e-08", "1e-12",
       [](Run& r) {
         r.fit.optimizer = mlo::adamw({.lr = 0.01, .eps = 1e-12, .weight_decay = 0.1});
       }},
      {"fit.optimizer.weight_decay", "0.1", "0.25",
       [](Run& r) { r.fit.optimizer = mlo::adamw({.lr = 0.01, .weight_decay = 0.25}); }},
      {"up.optimizer.momentum", "0.9", "0.8",
       [](Run& r) { r.up.optimizer = mlo::sgd({.lr = 0.1, .momentum = 0.8}); }},
      {"fit.schedule", "none", "a factor of 0.5 at step 5", [=](Run& r) { r.fit.schedule = half; }},
      {"fit.method", "identity × exact", "conjugate gradient × exact",
       [](Run& r) { r.fit.best_response = mlo::cg(); }},
      {"fit.data", "Double[12, 3]", "Double[9, 3]",
       [](Run& r) { r.data = r.data.narrow(0, 0, 9).contiguous(); }},
      {"fit.data", "in batches of 5", "in batches of 4", [](Run& r) { r.source.batch_size = 4; }},
      {"fit.data", "shuffled", "shuffled from seed 3", [](Run& r) { r.source.seed = 3; }},
      {"fit.data", "Double[12, 3]", "a function",
       [](Run& r) { r.fit.data = [](int64_t) {
                      return Batch{at::ones({1, 3}, at::kDouble)};
                    }; }},
      {"fit.unroll", "2", "3", [](Run& r) { r.fit.unroll = 3; }},
      {"fit.warmup_steps", "0", "4", [](Run& r) { r.fit.warmup_steps = 4; }},
      {"fit.accumulate", "1", "2", [](Run& r) { r.fit.accumulate = 2; }},
      {"fit.clip_norm", "0", "0.5", [](Run& r) { r.fit.clip_norm = 0.5; }},
      {"fit.reads", "found", "up", [](Run& r) { r.fit.reads = std::vector<std::string>{"up"}; }},
      {"up.below", "none", "fit", [](Run& r) { r.up.below = {"fit"}; }},
      {"up.top", "no", "yes", [](Run& r) { r.up.top = true; }},
  };
  return all;
}

}  // namespace

TEST_CASE("Each setting in which a resumed run differs is named, and counts where it is allowed",
          "[engine][state][settings]") {
  const State saved = Run().after(3);
  for (const Change& change : changes()) {
    INFO(change.name << ": " << change.here);
    Run other;
    change.make(other);
    const State before = other.after(1);
    Engine& engine = *other.engine;
    check_refused<CheckpointError>(
        [&] { engine.load_state(saved); },
        {"other settings: " + change.name + ": saved ", change.saved, ", here ", change.here,
         "allow_changed = {\"" + change.name + "\"}"});
    CHECK(difference(engine.state(), before) == "");

    const std::string key = "settings/" + change.name;
    engine.load_state(saved, {.allow_changed = {change.name}});
    CHECK(engine.steps_taken() == 3);
    const State after = engine.state();
    CHECK(after.text(key) != saved.text(key));
    CHECK(same_bits(after.tensor("level/fit/parameter/parameter0"),
                    saved.tensor("level/fit/parameter/parameter0")));
    engine.step();
    CHECK(engine.steps_taken() == 4);
  }
}

TEST_CASE("All differences are named at once, and one name stands for what is below it",
          "[engine][state][settings]") {
  const State saved = Run().after(2);
  Run other;
  other.fit.optimizer = mlo::adamw({.lr = 0.5, .eps = 1e-6, .weight_decay = 0.1});
  other.fit.unroll = 5;
  other.up.clip_norm = 1.0;
  const State before = other.after(1);
  Engine& engine = *other.engine;
  check_refused<CheckpointError>(
      [&] { engine.load_state(saved); },
      {"fit.optimizer.eps: saved 1e-08, here 1e-06; fit.optimizer.lr: saved 0.01, here 0.5; "
       "fit.unroll: saved 2, here 5; up.clip_norm: "
       "saved 0, here 1. ",
       "{.allow_changed = {\"fit.optimizer.eps\", \"fit.optimizer.lr\", \"fit.unroll\", "
       "\"up.clip_norm\"}}"});
  const std::string rest = message_of<CheckpointError>([&] {
    engine.load_state(saved, {.allow_changed = {"fit.optimizer", "fit.unroll"}});
  });
  CHECK(rest.find("settings: up.clip_norm: saved 0, here 1. ") != std::string::npos);
  CHECK(difference(engine.state(), before) == "");
  engine.load_state(saved, {.allow_changed = {"fit", "up"}});
  CHECK(engine.steps_taken() == 2);

  check_refused<mlo::ConfigError>(
      [&] { engine.load_state(saved, {.allow_changed = {"fit.optimiser"}}); },
      {"'fit.optimiser'", "no setting", "fit.optimizer.lr", "up.unroll"});
}

TEST_CASE("A learning rate that may change counts, with and without a schedule",
          "[engine][state][settings]") {
  for (const bool scheduled : {false, true}) {
    INFO("schedule: " << scheduled);
    const auto engine_of = [&](const at::Tensor& x, double lr) {
      auto engine = std::make_unique<Engine>(EngineOptions{.steps = 9});
      LevelOptions options{.optimizer = mlo::sgd({.lr = lr})};
      if (scheduled) options.schedule = [](int64_t) { return 0.5; };
      engine->add("only", Lambda(x, [x](const Batch&) { return 0.5 * (x - 1.0).square().sum(); }),
                  std::move(options));
      return engine;
    };
    const at::Tensor x = leaf(0.0), y = leaf(0.0);
    const auto first = engine_of(x, 0.1), second = engine_of(y, 0.4);
    first->step();
    const double reached = x.item<double>();
    second->step();
    CHECK_FALSE(message_of<CheckpointError>([&] { second->load_state(first->state()); }).empty());
    second->load_state(first->state(), {.allow_changed = {"only.optimizer.lr"}});
    CHECK(y.item<double>() == reached);
    second->step();
    CHECK(y.item<double>() ==
          Approx(reached + (scheduled ? 0.2 : 0.4) * (1.0 - reached)).epsilon(1e-14));
  }
}

TEST_CASE("Another class of optimizer begins without moments", "[engine][state][settings]") {
  const State saved = Run().after(3);
  Run other;
  other.up.optimizer = mlo::adam({.lr = 0.1});
  other.after(2);
  other.engine->load_state(saved, {.allow_changed = {"up.optimizer"}});
  const at::Tensor before = other.y.detach().clone();
  other.engine->step();
  // Adam's first step is of the learning rate's size wherever the gradient is not tiny.
  CHECK(((other.y.detach() - before).abs() - 0.1).abs().max().item<double>() < 1e-6);
}

TEST_CASE("A schedule is compared by what it did", "[engine][state][settings]") {
  const auto with = [](int64_t steps) {
    Run run;
    run.fit.schedule = mlo::cosine({.steps = steps});
    return run;
  };
  const State saved = with(20).after(3);
  with(20).make().load_state(saved);
  Run other = with(40);
  check_refused<CheckpointError>(
      [&] { other.make().load_state(saved); },
      {"fit.schedule: saved a factor of 0.8535533905932737 at step 5, here a factor of 0.96"});
}

TEST_CASE("Other data is seen by one number of it; where the position fits, it is kept",
          "[engine][state][settings]") {
  const State saved = Run().after(3);
  Run one;
  one.data[11][2] += 1e-12;
  one.make();
  check_refused<CheckpointError>([&] { one.engine->load_state(saved); },
                                 {"fit.data: saved Double[12, 3] ", ", here Double[12, 3] "});
  one.engine->load_state(saved, {.allow_changed = {"fit.data"}});
  CHECK(one.engine->state().integer("level/fit/data/position") ==
        saved.integer("level/fit/data/position"));
  CHECK(one.engine->state().integer("level/fit/data/epoch") == 2);

  Run more;
  more.data = at::randn({30, 3}, at::kDouble);
  more.make();
  const State fresh = more.engine->state();
  more.engine->load_state(saved, {.allow_changed = {"fit.data"}});
  for (const std::string name : {"key", "position", "epoch", "rows"})
    CHECK(more.engine->state().integer("level/fit/data/" + name) ==
          fresh.integer("level/fit/data/" + name));
  CHECK(more.engine->state().integer("level/fit/epoch") == 0);
}

TEST_CASE("Data that is trained is no part of the comparison", "[engine][state][settings]") {
  const auto engine_of = [](const at::Tensor& x, const at::Tensor& y) {
    auto engine = std::make_unique<Engine>();
    engine->add("low", follow(x, y), {.optimizer = mlo::sgd({.lr = 0.1}), .data = Batch{y}});
    engine->add("up", lead(y, x), sgd());
    return engine;
  };
  const at::Tensor x = leaf(0.0), y = leaf(0.5), u = leaf(0.0), v = leaf(0.5);
  const auto first = engine_of(x, y), second = engine_of(u, v);
  first->step();
  second->load_state(first->state());
  CHECK(same_bits(y, v));
}

namespace {

/// A class of the user's own, with options that LibTorch knows nothing of.
struct SignOptions : torch::optim::OptimizerCloneableOptions<SignOptions> {
  double lr = 0.1, decay = 0.0;
  double get_lr() const override { return lr; }
  void set_lr(double value) override { lr = value; }
  void serialize(torch::serialize::OutputArchive& archive) const override {
    archive.write("lr", c10::IValue(lr));
    archive.write("decay", c10::IValue(decay));
  }
};
struct Sign final : torch::optim::Optimizer {
  Sign(const Tensors& parameters, const SignOptions& options)
      : Optimizer(std::vector<torch::optim::OptimizerParamGroup>{torch::optim::OptimizerParamGroup(
                      parameters)},
                  std::make_unique<SignOptions>(options)) {}
  at::Tensor step(LossClosure) override {
    for (auto& group : param_groups())
      for (auto& p : group.params())
        p.add_(p.grad().sign(), -static_cast<SignOptions&>(group.options()).lr);
    return {};
  }
  void save(torch::serialize::OutputArchive&) const override {}
  void load(torch::serialize::InputArchive&) override {}
};

}  // namespace

TEST_CASE("An optimizer of the user's own is compared by class and options",
          "[engine][state][settings]") {
  const at::Tensor x = leaf(0.0);
  const auto engine_of = [&x](SignOptions options) {
    auto engine = std::make_unique<Engine>();
    engine->add("only", alone(x),
                {.optimizer = mlo::use(std::make_shared<Sign>(Tensors{x}, options))});
    return engine;
  };
  SignOptions other;
  other.decay = 0.5;
  const State saved = engine_of({})->state();
  CHECK(saved.text("settings/only.optimizer").find("Sign") != std::string::npos);
  CHECK(saved.text("settings/only.optimizer.lr") == "0.1");
  engine_of({})->load_state(saved);
  check_refused<CheckpointError>([&] { engine_of(other)->load_state(saved); },
                                 {"only.optimizer.decay: saved 0, here 0.5"});
  engine_of(other)->load_state(saved, {.allow_changed = {"only.optimizer.decay"}});

  Engine engine;
  engine.add("only", alone(x), sgd());
  check_refused<CheckpointError>([&] { engine.load_state(saved); },
                                 {"only.optimizer: saved ", "Sign (", "here torch::optim::SGD ("});
}

TEST_CASE("A run that is over goes on for more steps as one that was longer from the start",
          "[engine][state][resume]") {
  Run whole, part;
  whole.options.steps = 7;
  whole.make().run();
  const State saved = [&] {
    part.make().run();
    return part.engine->state();
  }();
  Run more;
  more.options.steps = 7;
  more.options.validate_every = 2;
  more.make().load_state(saved);
  CHECK(more.engine->run().steps == 7);
  CHECK(difference(more.engine->state(), whole.engine->state()) == "");
}

TEST_CASE("A state of version 1 is read without a comparison", "[engine][state][settings]") {
  State old;
  const State saved = Run().after(3);
  for (const auto& [key, value] : saved.values())
    if (!key.starts_with("settings/"))
      old.set(key, key == "engine/version" ? State::Value(int64_t{1}) : value);
  old.set("engine/seed", int64_t{9});
  Run other;
  other.fit.unroll = 3;
  other.make().load_state(old);
  CHECK(other.engine->steps_taken() == 3);
  CHECK(other.engine->state().text("settings/engine.seed") == "9");

  Run sgd_below;  // what LibTorch would end with an internal assertion
  sgd_below.fit.optimizer = mlo::sgd({.lr = 0.01, .momentum = 0.9});
  const State before = sgd_below.after(1);
  const std::string message =
      message_of<CheckpointError>([&] { sgd_below.engine->load_state(old); });
  INFO(message);
  CHECK(message.find("level/fit/optimizer") != std::string::npos);
  CHECK(message.find("torch::optim::SGD") != std::string::npos);
  CHECK(message.find("ASSERT") == std::string::npos);
  CHECK(difference(sgd_below.engine->state(), before) == "");
}

TEST_CASE("Every key of a state is read, and a missing or wrong one is a CheckpointError",
          "[engine][state][settings]") {
  Run run, other;
  run.fit.best_response = mlo::cg({.max_iterations = 2});
  other.fit.best_response = mlo::cg({.max_iterations = 2});
  const State saved = run.after(2), before = other.after(1);
  Engine& engine = *other.engine;
  for (const auto& [key, value] : saved.values()) {
    INFO(key);
    State without;
    for (const auto& [name, kept] : saved.values())
      if (name != key) without.set(name, kept);
    if (key ==
        "level/fit/method/warm_start") {  // as in a state of version 1: the solver starts cold
      engine.load_state(without);
      engine.load_state(before);
    } else {
      CHECK_THROWS_AS(engine.load_state(without), CheckpointError);
    }
    const State::Value wrong = std::holds_alternative<std::string>(value)
                                   ? State::Value(1.5)
                                   : State::Value(std::string("x"));
    CHECK_THROWS_AS(engine.load_state(with(saved, key, wrong)), CheckpointError);
    if (std::holds_alternative<at::Tensor>(value))
      CHECK_THROWS_AS(engine.load_state(with(saved, key, at::Tensor())), CheckpointError);
  }
  CHECK(difference(engine.state(), before) == "");
  engine.load_state(saved);
  CHECK(difference(engine.state(), saved) == "");
}
