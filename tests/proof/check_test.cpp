// check_hypergradient: agrees where the method is right, refuses where it is wrong, and leaves the
// engine as it was.
#include "mlo/check.h"
#include "curved.h"
#include "mlo/error.h"
#include "mlo/hypergradient/presets.h"

#include <nlohmann/json.hpp>

#include "catch.h"

using namespace mlo;
using namespace mlo::testing;

namespace {

using MakeMethod = std::function<std::unique_ptr<Method>(std::size_t level)>;

struct Setting {
  std::string shape = "chain of three";
  Setup optimizer = {"SGD", Kind::sgd, {{.lr = 0.2}}};
  int64_t unroll = 1;  // of the lowest level; the others take one step
  bool curved = true;
};

std::unique_ptr<Engine> engine_of(const Setting& setting, const MakeMethod& method,
                                  std::shared_ptr<Game>* keep = nullptr) {
  const auto game =
      std::make_shared<Game>(shape(setting.shape), GameOptions{.curved = setting.curved});
  auto engine = std::make_unique<Engine>();
  add_levels(*engine, game, [&](std::size_t k) {
    LevelOptions options;
    options.optimizer = factory(setting.optimizer);
    options.unroll = k == 0 ? setting.unroll : 1;
    options.best_response = method(k);
    return options;
  });
  if (keep) *keep = game;
  return engine;
}

CheckReport check(const Setting& setting, const MakeMethod& method,
                  const CheckOptions& options = {}) {
  const auto engine = engine_of(setting, method);
  for (int i = 0; i < 2; ++i) engine->step();
  return check_hypergradient(*engine, options);
}

const MakeMethod kOneStep = [](std::size_t) { return one_step(); };
const MakeMethod kUnrolled = [](std::size_t) { return unrolled(); };

}  // namespace

TEST_CASE("the check agrees with one step, unroll 1, and with unrolled") {
  const std::vector<Setup> optimizers = {{"SGD", Kind::sgd, {{.lr = 0.2, .momentum = 0.5}}},
                                         {"AdamW", Kind::adamw, {{.weight_decay = 0.2}}}};
  for (const auto& name :
       {"two levels", "chain of three", "diamond", "chain registered upside down"})
    for (const Setup& optimizer : optimizers) {
      INFO(name << ", " << optimizer.name);
      const CheckReport report = check({.shape = name, .optimizer = optimizer}, kOneStep);
      CHECK(report.level == "top");
      CHECK(report.exact_directions);
      CHECK(report.directions == 5);
      CHECK(report.steps_taken.relative_error < 1e-7);
      CHECK(report.steps_taken.cosine > 1.0 - 1e-9);
      CHECK_FALSE(report.resolved);
    }
  for (const auto& name : {"two levels", "chain of three"})
    for (const Setup& optimizer : optimizers) {
      const CheckReport report =
          check({.shape = name, .optimizer = optimizer, .unroll = 4}, kUnrolled);
      CHECK(report.steps_taken.relative_error < 1e-7);
    }
}

TEST_CASE("the check agrees with conjugate gradient once the lower levels are solved") {
  const MakeMethod solved = [](std::size_t) {
    return cg({.max_iterations = 50, .tolerance = 1e-12});
  };
  for (const auto& name : {"two levels", "chain of three"}) {
    const Setting setting{.shape = name, .optimizer = {"SGD", Kind::sgd, {{.lr = 0.3}}}};
    std::shared_ptr<Game> game;
    const auto there = engine_of(setting, solved, &game);
    const std::size_t u = game->shape.uppers[0];
    const Vector x = settled(*game, u, game->stacked());
    for (std::size_t k = 0; k < game->levels(); ++k) game->set(k, game->part(x, k));
    const CheckReport report = check_hypergradient(*there, {.resolve_steps = 120});
    INFO(name << "\n" << report.to_string());
    REQUIRE(report.resolved);
    CHECK(report.resolved->relative_error < 1e-6);
    CHECK(report.agrees(1e-4));
    CHECK(report.solved.size() == game->levels() - 1);
    for (const auto& each : report.solved) CHECK(each.missing < 1e-6);
    // One step is right for the step and wrong for the optimum.
    const auto short_sighted = engine_of(setting, kOneStep, &game);
    for (std::size_t k = 0; k < game->levels(); ++k) game->set(k, game->part(x, k));
    const CheckReport other = check_hypergradient(*short_sighted, {.resolve_steps = 120});
    CHECK(other.steps_taken.relative_error < 1e-7);
    CHECK(other.resolved->relative_error > 1e-2);
    CHECK(other.verdict(1e-3) == Verdict::disagrees);
    CHECK(other.steps_taken.agrees(1e-4));
    CHECK_THAT(other.to_string(), Contains("next: this is the derivative of the steps taken"));
  }
}

TEST_CASE("the check refuses Betty's scale and methods with a fault") {
  for (const auto& name : {"two levels", "chain of three", "diamond"}) {
    INFO(name);
    CHECK(check({.shape = name}, [](std::size_t) { return betty(); }).steps_taken.relative_error >
          1e-2);
    CHECK(check({.shape = name}, [](std::size_t k) {
            return faulty(one_step(), k == 0 ? -1.0 : 1.0);
          }).steps_taken.relative_error > 1e-3);
    CHECK(check({.shape = name}, [](std::size_t) {
            return faulty(one_step(), 0.5);
          }).steps_taken.relative_error > 1e-3);
    CHECK(check({.shape = name, .optimizer = {"AdamW", Kind::adamw, {{}}}}, [](std::size_t) {
            return one_step({}, {.scale = IdentityOptions::Scale::learning_rate});
          }).steps_taken.relative_error > 1e-3);
    CHECK(check({.shape = name, .unroll = 3}, kOneStep).steps_taken.relative_error > 1e-3);
  }
}

TEST_CASE("the check of 10 % too much says 10 % of the response") {
  std::shared_ptr<Game> game;
  const auto engine = engine_of({.shape = "two levels, no direct dependence"},
                                [](std::size_t) { return faulty(one_step(), 1.1); });
  const CheckReport report = check_hypergradient(*engine);
  CHECK(report.steps_taken.relative_error == Approx(0.1).epsilon(1e-4));
  CHECK(report.steps_taken.cosine == Approx(1.0));
}

TEST_CASE("the check in random directions, and of another level than the top") {
  const CheckReport few = check({.shape = "chain of three"}, kOneStep, {.directions = 3});
  CHECK_FALSE(few.exact_directions);
  CHECK(few.directions == 3);
  CHECK(few.steps_taken.relative_error < 1e-6);
  CHECK(check({.shape = "chain of three"}, [](std::size_t) { return faulty(one_step(), 0.5); },
              {.directions = 3})
            .steps_taken.relative_error > 1e-3);

  const CheckReport middle = check({.shape = "a sweep below the sweep"}, kOneStep, {.level = "m"});
  CHECK(middle.level == "m");
  CHECK(middle.steps_taken.relative_error < 1e-7);
}

TEST_CASE("the check holds analytic derivatives against automatic differentiation") {
  for (const double factor : {1.0, 0.9}) {
    const auto game = std::make_shared<Game>(shape("three levels, all read all below and the top"));
    Engine engine;
    for (std::size_t k = 0; k < game->levels(); ++k) {
      LevelOptions options;
      options.optimizer = sgd({.lr = 0.1});
      options.best_response = implicit(analytic_oracle(), identity_solver());
      auto problem = std::make_shared<AnalyticQuadraticProblem>(game, k);
      if (k == 1) problem->factor = factor;
      engine.add(game->shape.levels[k].name, problem, std::move(options));
    }
    const CheckReport report = check_hypergradient(engine);
    REQUIRE(report.analytic.size() == 3);
    for (const auto& each : report.analytic) {
      INFO(each.level << ", factor " << factor);
      REQUIRE(each.gradient);
      CHECK(each.gradient->relative_error < 1e-12);
      if (each.level == "mid" && factor != 1.0) {
        CHECK(each.product.relative_error == Approx(1.0 - factor).epsilon(1e-6));
      } else {
        CHECK(each.product.relative_error < 1e-12);
      }
    }
    CHECK((report.steps_taken.relative_error < 1e-7) == (factor == 1.0));
  }
}

TEST_CASE("the check leaves the engine as it was") {
  const Setting setting{.optimizer = {"AdamW", Kind::adamw, {{}}}};
  std::shared_ptr<Game> checked_game, other_game;
  const MakeMethod warm = [](std::size_t) { return cg({.max_iterations = 3}); };
  const auto checked = engine_of(setting, warm, &checked_game),
             other = engine_of(setting, warm, &other_game);
  for (int i = 0; i < 3; ++i) {
    checked->step();
    other->step();
    check_hypergradient(*checked, {.resolve_steps = 3});
  }
  CHECK(checked_game->stacked() == other_game->stacked());
  CHECK(checked_game->flat(2, checked->hypergradient("top")) ==
        other_game->flat(2, other->hypergradient("top")));
}

TEST_CASE("the check leaves the engine as it was when a loss throws in its middle") {
  struct Fragile final : QuadraticProblem {
    using QuadraticProblem::QuadraticProblem;
    Evaluation loss(const Batch& batch) override {
      if (--calls_left == 0) throw std::runtime_error("no more");
      return QuadraticProblem::loss(batch);
    }
    int calls_left = 1 << 30;
  };
  const auto game = std::make_shared<Game>(shape("two levels"));
  Engine engine;
  std::shared_ptr<Fragile> low;
  for (std::size_t k = 0; k < 2; ++k) {
    LevelOptions options;
    options.optimizer = adam({.lr = 0.1});
    auto problem = std::make_shared<Fragile>(game, k);
    if (k == 0) low = problem;
    engine.add(game->shape.levels[k].name, problem, std::move(options));
  }
  engine.step();
  for (const int calls : {2, 5, 8}) {
    const Vector here = game->stacked();
    low->calls_left = calls;
    CHECK_THROWS_WITH(check_hypergradient(engine), "no more");
    CHECK(game->stacked() == here);
  }
}

TEST_CASE("the check says what it cost, and whether the levels solved anew had converged") {
  const MakeMethod solved = [](std::size_t) {
    return cg({.max_iterations = 50, .tolerance = 1e-12});
  };
  const Setting setting{.shape = "two levels", .optimizer = {"SGD", Kind::sgd, {{.lr = 0.3}}}};
  double missing = 1.0;
  for (const int64_t steps : {1, 10, 100}) {
    const CheckReport report = check(setting, solved, {.resolve_steps = steps});
    INFO(report.to_string());
    REQUIRE(report.solved.size() == 1);
    CHECK(report.solved[0].level == "low");
    CHECK(report.solved[0].missing < 0.7 * missing);
    missing = report.solved[0].missing;
    CHECK(report.resolved->uncertainty >= missing);
    CHECK(report.solved[0].gradient_before > report.solved[0].gradient_after);
    CHECK((report.to_string().find("next: the levels solved anew have not converged") !=
           std::string::npos) == (steps < 100));
    // Five parameters above: at least four evaluations each, twice, and a few for the rounding.
    CHECK(report.evaluations >= 2 * (5 * 4 + 6));
    CHECK(report.own_steps >= (5 * 4 + 6) * (1 + steps));
    if (steps > 1) CHECK((report.own_steps - report.evaluations) % (steps - 1) == 0);
    CHECK_THAT(report.to_string(), Contains(std::to_string(report.own_steps) + " steps"));
  }
}

TEST_CASE("a resolve that diverges leaves the rest of the check") {
  const Setting setting{
      .shape = "two levels", .optimizer = {"SGD", Kind::sgd, {{.lr = 1.0}}}, .curved = true};
  std::shared_ptr<Game> game;
  const auto engine = engine_of(setting, kOneStep, &game);
  game->set(0, 3.0 * Vector::Ones(game->size(0)));
  const Vector here = game->stacked();
  const CheckReport report = check_hypergradient(*engine, {.resolve_steps = 100});
  INFO(report.to_string());
  CHECK_FALSE(report.resolved);
  CHECK_THAT(report.resolve_failure, Contains("level 'low'"));
  CHECK_THAT(report.to_string(), Contains("could not be solved anew: level 'low'") &&
                                     Contains("next: for a comparison"));
  CHECK(report.steps_taken.agrees(1e-4));
  CHECK(report.verdict(1e-4) == Verdict::cannot_tell);
  CHECK(game->stacked() == here);
}

TEST_CASE("the check's report as JSON") {
  const CheckReport report = check({.shape = "chain of three"}, kOneStep, {.resolve_steps = 3});
  const auto json = nlohmann::json::parse(report.to_json());
  CHECK(json.at("level") == "top");
  CHECK(json.at("directions") == 5);
  CHECK(json.at("exact_directions") == true);
  CHECK(json.at("steps_taken").at("relative_error").get<double>() ==
        report.steps_taken.relative_error);
  CHECK(json.at("steps_taken").at("uncertainty").get<double>() == report.steps_taken.uncertainty);
  CHECK(json.at("resolved").at("worst").at("parameter").get<std::string>() ==
        report.resolved->worst->parameter);
  CHECK(json.at("solved").size() == 2);
  CHECK(json.at("solved")[1].at("missing").get<double>() == report.solved[1].missing);
  CHECK(json.at("own_steps") == report.own_steps);
  CHECK_FALSE(json.at("next").get<std::string>().empty());
}

namespace {

// A stream that can be put back so many times.
struct Stream final : BatchSource {
  explicit Stream(int loads) : loads(loads) {}
  Batch next() override {
    return Batch{at::full({1}, static_cast<double>(++handed_out), at::kDouble)};
  }
  void save(State& state, const std::string& prefix) const override {
    state.set(prefix + "n", handed_out);
  }
  void load(const State& state, const std::string& prefix) override {
    if (loads-- <= 0) throw CheckpointError("a stream cannot go back");
    handed_out = state.integer(prefix + "n");
  }
  int loads;
  int64_t handed_out = 0;
};

struct Streamed {
  explicit Streamed(int loads) {
    struct Fit final : Problem {
      Fit(at::Tensor w, at::Tensor x) : Problem(trains(w)), w(w), x(x) {}
      Evaluation loss(const Batch& batch) override { return (w - x * batch[0]).square().sum(); }
      at::Tensor w, x;
    };
    struct Up final : Problem {
      Up(at::Tensor x, at::Tensor w) : Problem(trains(x)), w(w) {}
      Evaluation loss(const Batch&) override { return (w - 1).square().sum(); }
      at::Tensor w;
    };
    auto source = std::make_unique<Stream>(loads);
    stream = source.get();
    engine.add("fit", Fit(w, x), {.optimizer = sgd(), .data = std::move(source)});
    engine.add("up", Up(x, w), {.optimizer = sgd()});
  }
  at::Tensor w = at::zeros({1}, at::kDouble).requires_grad_(),
             x = at::ones({1}, at::kDouble).requires_grad_();
  Engine engine;
  Stream* stream = nullptr;
};

}  // namespace

TEST_CASE("the check refuses a source that cannot go back before it changes anything") {
  Streamed streamed(0);
  CHECK_THROWS_WITH(check_hypergradient(streamed.engine),
                    Catch::Matchers::StartsWith("a stream cannot go back; check_hypergradient") &&
                        Contains("the data of level 'fit'"));
  CHECK(streamed.w.item<double>() == 0.0);
  CHECK(streamed.stream->handed_out == 1);  // by build(), for the first step
  streamed.engine.step();
  CHECK(streamed.stream->handed_out == 1);
  CHECK(streamed.w.item<double>() == Approx(0.2));
}

TEST_CASE("an engine that the check could not put back says so instead of going on") {
  for (const int loads : {1, 3, 10}) {
    Streamed streamed(loads);
    CHECK_THROWS_WITH(check_hypergradient(streamed.engine), "a stream cannot go back");
    const std::vector<std::function<void()>> calls = {
        [&] { streamed.engine.step(); },     [&] { streamed.engine.run(); },
        [&] { streamed.engine.validate(); }, [&] { streamed.engine.hypergradient("up"); },
        [&] { streamed.engine.state(); },    [&] { check_hypergradient(streamed.engine); }};
    for (const auto& call : calls)
      CHECK_THROWS_WITH(call(), Contains("cannot go on") && Contains("a stream cannot go back") &&
                                    Contains("make a new one"));
  }
  // A loss that throws is passed on, and the engine is as it was.
  Streamed healthy(1 << 20);
  check_hypergradient(healthy.engine);
  healthy.engine.step();
  CHECK(healthy.stream->handed_out == 1);
}

TEST_CASE("A report says first that the hypergradient is off, and only else what cannot be told",
          "[check]") {
  const auto next = [](double error, double uncertainty) {
    mlo::CheckReport report;
    report.steps_taken.relative_error = error;
    report.steps_taken.uncertainty = uncertainty;
    return nlohmann::json::parse(report.to_json()).at("next").get<std::string>();
  };
  CHECK(next(1e-6, 1e-7).empty());
  CHECK_THAT(next(1e-3, 0.07), Contains("errors below 0.07 cannot be told"));
  CHECK_THAT(next(3.67, 0.07), Contains("differentiate the steps taken"));
}
