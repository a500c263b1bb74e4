// check_hypergradient: agrees where the method is right, refuses where it is wrong, and leaves the engine as it was.
#include "mlo/hypergradient/check.h"
#include "curved.h"
#include "mlo/hypergradient/presets.h"

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

std::unique_ptr<Engine> engine_of(const Setting& setting, const MakeMethod& method, std::shared_ptr<Game>* keep = nullptr) {
  const auto game = std::make_shared<Game>(shape(setting.shape), GameOptions{.curved = setting.curved});
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

CheckReport check(const Setting& setting, const MakeMethod& method, const CheckOptions& options = {}) {
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
  for (const auto& name : {"two levels", "chain of three", "diamond", "chain registered upside down"})
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
      const CheckReport report = check({.shape = name, .optimizer = optimizer, .unroll = 4}, kUnrolled);
      CHECK(report.steps_taken.relative_error < 1e-7);
    }
}

TEST_CASE("the check agrees with conjugate gradient once the lower levels are solved") {
  const MakeMethod solved = [](std::size_t) { return cg({.max_iterations = 50, .tolerance = 1e-12}); };
  for (const auto& name : {"two levels", "chain of three"}) {
    const Setting setting{.shape = name, .optimizer = {"SGD", Kind::sgd, {{.lr = 0.3}}}};
    std::shared_ptr<Game> game;
    const auto there = engine_of(setting, solved, &game);
    const std::size_t u = game->shape.uppers[0];
    const Vector x = settled(*game, u, game->stacked());
    for (std::size_t k = 0; k < game->levels(); ++k) game->set(k, game->part(x, k));
    const CheckReport report = check_hypergradient(*there, {.resolve_steps = 250});
    INFO(name << "\n" << report.to_string());
    REQUIRE(report.resolved);
    CHECK(report.resolved->relative_error < 1e-6);
    // One step is right for the step and wrong for the optimum.
    const auto short_sighted = engine_of(setting, kOneStep, &game);
    for (std::size_t k = 0; k < game->levels(); ++k) game->set(k, game->part(x, k));
    const CheckReport other = check_hypergradient(*short_sighted, {.resolve_steps = 250});
    CHECK(other.steps_taken.relative_error < 1e-7);
    CHECK(other.resolved->relative_error > 1e-2);
  }
}

TEST_CASE("the check refuses Betty's scale and methods with a fault") {
  for (const auto& name : {"two levels", "chain of three", "diamond"}) {
    INFO(name);
    CHECK(check({.shape = name}, [](std::size_t) { return betty(); }).steps_taken.relative_error > 1e-2);
    CHECK(check({.shape = name}, [](std::size_t k) {
            return faulty(one_step(), k == 0 ? -1.0 : 1.0);
          }).steps_taken.relative_error > 1e-3);
    CHECK(check({.shape = name}, [](std::size_t) { return faulty(one_step(), 0.5); }).steps_taken.relative_error > 1e-3);
    CHECK(check({.shape = name, .optimizer = {"AdamW", Kind::adamw, {{}}}}, [](std::size_t) {
            return one_step({}, {.scale = IdentityOptions::Scale::learning_rate});
          }).steps_taken.relative_error > 1e-3);
    CHECK(check({.shape = name, .unroll = 3}, kOneStep).steps_taken.relative_error > 1e-3);
  }
}

TEST_CASE("the check of 10 % too much says 10 % of the response") {
  std::shared_ptr<Game> game;
  const auto engine =
      engine_of({.shape = "two levels, no direct dependence"}, [](std::size_t) { return faulty(one_step(), 1.1); });
  const CheckReport report = check_hypergradient(*engine);
  CHECK(report.steps_taken.relative_error == Approx(0.1).epsilon(1e-4));
  CHECK(report.steps_taken.cosine == Approx(1.0));
}

TEST_CASE("the check in random directions, and of another level than the top") {
  const CheckReport few = check({.shape = "chain of three"}, kOneStep, {.directions = 3});
  CHECK_FALSE(few.exact_directions);
  CHECK(few.directions == 3);
  CHECK(few.steps_taken.relative_error < 1e-6);
  CHECK(check({.shape = "chain of three"}, [](std::size_t) { return faulty(one_step(), 0.5); }, {.directions = 3})
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
  const auto checked = engine_of(setting, warm, &checked_game), other = engine_of(setting, warm, &other_game);
  for (int i = 0; i < 3; ++i) {
    checked->step();
    other->step();
    check_hypergradient(*checked, {.resolve_steps = 3});
  }
  CHECK(checked_game->stacked() == other_game->stacked());
  CHECK(checked_game->flat(2, checked->hypergradient("top")) == other_game->flat(2, other->hypergradient("top")));
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
