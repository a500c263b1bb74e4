// What passes through a probe must leave no trace, and engines do not step at the same time.
#include "engine/support.h"

#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>

#include <thread>

namespace {

/// A lower level with all that a probe must put back: batch norm, dropout, a frozen layer,
/// train/eval modes.
struct FrozenNetImpl final : torch::nn::Module {
  FrozenNetImpl() {
    first = register_module("first", torch::nn::Linear(3, 4));
    norm = register_module("norm", torch::nn::BatchNorm1d(4));
    drop = register_module("drop", torch::nn::Dropout(0.3));
    last = register_module("last", torch::nn::Linear(4, 1));
    last->bias.set_requires_grad(false);
    to(at::kDouble);
  }
  at::Tensor forward(const at::Tensor& x) { return last(drop(norm(first(x)).tanh())); }
  torch::nn::Linear first{nullptr}, last{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::nn::Dropout drop{nullptr};
};
TORCH_MODULE(FrozenNet);

struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Everything a transaction must put back, but for the generators.
struct Snapshot {
  Tensors values;
  std::vector<int64_t> versions;
  Tensors buffers;
  std::vector<bool> modes;
  std::vector<bool> switches;
};

/// Levels "low", "middle" (if wanted) and "up". Once armed by the upper loss, `fuse` evaluations of
/// the lower one later that throws.
struct Explosive {
  FrozenNet net;
  at::Tensor middle = leaf(0.4), weight = leaf({0.5, 0.6, 0.7});
  at::Tensor data = at::linspace(-1.0, 1.0, 24, at::kDouble).reshape({8, 3});
  int fuse = -1, countdown = -1;
  bool fired = false, seen_training = false;
  std::optional<Snapshot> armed;

  Snapshot snapshot() {
    Snapshot s;
    Tensors all = net->parameters();
    all.push_back(middle);
    all.push_back(weight);
    s.values = copies(all);
    for (const auto& tensor : all) s.versions.push_back(tensor._version());
    s.buffers = copies(net->buffers());
    for (const auto& module : net->modules()) s.modes.push_back(module->is_training());
    s.switches = attention_switches();
    return s;
  }
  std::vector<bool> gradients() {
    std::vector<bool> result = {middle.requires_grad(), weight.requires_grad()};
    for (const auto& parameter : net->parameters()) result.push_back(parameter.requires_grad());
    return result;
  }

  void add_to(Engine& engine, const std::function<std::unique_ptr<mlo::Method>()>& method,
              bool three) {
    const auto explode = [this] {
      if (countdown < 0 || --countdown > 0) return;
      countdown = -1;
      fired = true;
      seen_training = net->is_training();
      throw UserError("the user's own");
    };
    engine.add("low",
               Lambda(mlo::trains(net),
                      [=, this](const Batch&) {
                        const at::Tensor error = net->forward(data * weight).square().mean();
                        explode();
                        return error;
                      }),
               {.optimizer = mlo::sgd({.lr = 0.05, .momentum = 0.9}),
                .unroll = 2,
                .best_response = method()});
    if (three)
      engine.add("middle",
                 Lambda(middle,
                        [=, this](const Batch&) {
                          return (middle - weight.sum()).square() +
                                 middle * net->forward(data).square().mean();
                        }),
                 respond(mlo::one_step({.keep_graph = false})));
    engine.add("up",
               Lambda(weight,
                      [=, this](const Batch&) {
                        net->train();
                        const at::Tensor through =
                            three ? (middle * net->first->weight.sum()).square()
                                  : net->first->weight.square().sum();
                        const at::Tensor loss =
                            through + net->forward(data).square().mean() + weight.square().sum();
                        net->eval();  // not the mode of the lower level's step
                        net->drop->train();
                        if (fuse > 0) {
                          countdown = fuse;
                          armed = snapshot();
                        }
                        return loss;
                      }),
               sgd(0.01));
  }
};

struct Case {
  const char* name;
  std::function<std::unique_ptr<mlo::Method>()> method;
  int fuse;
  bool three;
};

}  // namespace

TEST_CASE("A user's exception inside a probe leaves no trace", "[engine][probe]") {
  const auto fresh = mlo::ExactOptions{.keep_graph = false};
  const Case cases[] = {
      {"difference, first evaluation", [] { return mlo::darts(); }, 1, false},
      {"difference, second evaluation", [] { return mlo::darts(); }, 2, false},
      {"difference at the point after the step", [] { return mlo::betty(); }, 2, false},
      {"exact, a fresh graph", [=] { return mlo::one_step(fresh); }, 1, false},
      {"conjugate gradient, a fresh graph", [=] { return mlo::cg({}, fresh); }, 1, false},
      {"conjugate gradient by differences, in the middle of the solve",
       [] {
         return mlo::implicit(mlo::finite_difference_oracle(), mlo::conjugate_gradient_solver());
       },
       4, false},
      {"unrolled, at the earlier step", [=] { return mlo::unrolled(); }, 2, false},
      {"below a middle level, difference", [] { return mlo::darts(); }, 2, true},
      {"below a middle level, exact", [=] { return mlo::one_step(fresh); }, 1, true},
  };
  for (const Case& each : cases) {
    INFO(each.name);
    Explosive problem;
    Engine engine;
    problem.add_to(engine, each.method, each.three);
    problem.net->train();
    engine.step();  // with momentum and batch statistics behind it

    problem.net->train();
    const at::Tensor generator = generator_state();
    const auto gradients = problem.gradients();
    problem.fuse = each.fuse;
    CHECK_THROWS_AS(engine.step(), UserError);
    CHECK(problem.fired);
    CHECK(problem.seen_training);  // the probe had set the mode of the step
    REQUIRE(problem.armed);

    const Snapshot now = problem.snapshot();
    CHECK(same_bits(now.values, problem.armed->values));
    CHECK(now.versions == problem.armed->versions);
    CHECK(same_bits(now.buffers, problem.armed->buffers));
    CHECK(now.modes == problem.armed->modes);
    CHECK(now.switches == problem.armed->switches);
    CHECK(same_bits(generator_state(), generator));
    CHECK(problem.gradients() == gradients);
    CHECK_FALSE(problem.net->last->bias.requires_grad());

    problem.fuse = -1;  // and the engine goes on
    problem.net->train();
    CHECK_NOTHROW(engine.step());
  }
}

TEST_CASE("A probe that succeeds leaves no trace either", "[engine][probe]") {
  for (const bool three : {false, true}) {
    Explosive problem;
    Engine engine;
    problem.add_to(
        engine, [] { return mlo::darts(); }, three);
    engine.build();
    const at::Tensor generator = generator_state();
    problem.net->train();
    problem.fuse = 1000;  // takes the snapshot, never fires
    engine.hypergradient("up");
    REQUIRE(problem.armed);
    const Snapshot now = problem.snapshot();
    CHECK(same_bits(now.values, problem.armed->values));
    CHECK(now.versions == problem.armed->versions);
    CHECK(same_bits(now.buffers, problem.armed->buffers));
    CHECK(now.modes == problem.armed->modes);
    CHECK(same_bits(generator_state(), generator));
  }
}

TEST_CASE("An exception in the derivatives that a problem knows leaves no trace",
          "[engine][probe]") {
  struct Known final : mlo::Problem, mlo::AnalyticDerivatives {
    Known(at::Tensor a, at::Tensor b, const bool* explode)
        : Problem(mlo::trains(a)), x(std::move(a)), y(std::move(b)), fails(explode) {}
    Evaluation loss(const Batch&) override { return 0.5 * (x - y).square().sum(); }
    Tensors product(const Batch&, const Tensors& v, const Tensors& wrt) override {
      if (*fails) throw UserError("the user's own");
      Tensors result;
      for (const auto& t : wrt) result.push_back(t.is_same(x) ? v[0] : -v[0]);
      return result;
    }
    at::Tensor x, y;
    const bool* fails;
  };
  const at::Tensor x = leaf({0.2, 0.3}), y = leaf({0.5, 0.6});
  bool fails = false;
  Engine engine;
  engine.add("low", Known(x, y, &fails),
             respond(mlo::implicit(mlo::analytic_oracle(), mlo::identity_solver())));
  engine.add("up", lead(y, x), sgd());
  engine.step();
  fails = true;
  const Tensors before = copies({x, y});
  const at::Tensor followed =
      before[0] - 0.1 * (before[0] - before[1]);  // the step that low takes before the sweep
  const at::Tensor generator = generator_state();
  CHECK_THROWS_AS(engine.step(), UserError);
  CHECK(at::allclose(x, followed, 0.0, 1e-16));
  CHECK(same_bits(y, before[1]));
  CHECK(x.requires_grad());
  CHECK(same_bits(generator_state(), generator));
}

TEST_CASE("An exception while the engine is being built leaves no trace", "[engine][probe]") {
  for (int fuse = 1; fuse <= 3; ++fuse) {
    INFO("evaluation " << fuse);
    Explosive problem;
    Engine engine;
    problem.add_to(
        engine, [] { return mlo::one_step(); }, false);
    problem.net->train();
    const Snapshot before = problem.snapshot();
    const auto gradients = problem.gradients();
    const at::Tensor generator = generator_state();
    problem.countdown = fuse;
    CHECK_THROWS_AS(engine.build(), UserError);
    const Snapshot now = problem.snapshot();
    CHECK(same_bits(now.values, before.values));
    CHECK(same_bits(now.buffers, before.buffers));
    CHECK(problem.gradients() == gradients);
    CHECK(same_bits(generator_state(), generator));
    CHECK_NOTHROW(engine.step());
  }
}

TEST_CASE("A check that an exception ends leaves the engine as it was", "[engine][probe]") {
  Explosive problem;
  Engine engine;
  problem.add_to(
      engine, [] { return mlo::darts(); }, false);
  engine.step();
  const State before = engine.state();
  for (int fuse : {1, 5, 14}) {
    problem.countdown = fuse;
    CHECK_THROWS_AS(mlo::check_hypergradient(engine), UserError);
    CHECK(difference(engine.state(), before) == "");
  }
  mlo::check_hypergradient(engine);
  CHECK(difference(engine.state(), before) == "");
}

TEST_CASE("A second engine does not step while another does", "[engine][exclusive]") {
  const at::Tensor a = leaf(0.2), b = leaf(0.3);
  Engine second({.steps = 2});
  second.add("inner", alone(b), sgd());
  const std::pair<const char*, std::function<void()>> calls[] = {
      {"build", [&] { second.build(); }},
      {"step", [&] { second.step(); }},
      {"run", [&] { second.run(); }},
      {"hypergradient", [&] { second.hypergradient("inner"); }},
      {"validate", [&] { second.validate(); }},
      {"check", [&] { mlo::check_hypergradient(second); }},
      {"load_state", [&] { second.load_state(State()); }},
  };
  for (const bool built : {false, true}) {
    if (built) second.build();
    for (const auto& [name, call] : calls) {
      if (built && std::string(name) == "build") continue;  // nothing left to do
      for (const bool from_thread : {false, true}) {
        INFO(name << (from_thread ? " from a thread" : " from a loss") << (built ? ", built" : ""));
        std::string message;
        const auto attempt = [&] { message = message_of<mlo::Error>(call); };
        Engine first;
        first.add("outer",
                  Lambda(a,
                         [&](const Batch&) {
                           if (from_thread) {
                             std::thread(attempt).join();
                           } else {
                             attempt();
                           }
                           return 0.5 * a.square();
                         }),
                  sgd());
        first.step();
        CHECK_THAT(message, Contains("another engine of this process is stepping") &&
                                Contains("one engine steps at a time") &&
                                Contains("wait for the other"));
        CHECK(first.counters("outer").steps == 1);
      }
    }
  }
  CHECK(second.counters("inner").steps == 0);
  second.run();  // once the first is done it may
  CHECK(second.steps_taken() == 2);
}

TEST_CASE("After an engine has thrown another may step", "[engine][exclusive]") {
  const at::Tensor a = leaf(0.2), b = leaf(0.3);
  Engine first, second;
  first.add("outer",
            Lambda(a,
                   [&](const Batch&) -> Evaluation {
                     second.step();  // not caught: it ends the first one's step, too
                     return 0.5 * a.square();
                   }),
            sgd());
  second.add("inner", alone(b), sgd());
  check_refused<mlo::Error>([&] { first.step(); }, {"another engine"});
  CHECK_NOTHROW(second.step());
}
