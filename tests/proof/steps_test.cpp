// One-step and unrolled against autograd through the steps really taken, on curved games of every
// shape.
#include "curved.h"
#include "mlo/hypergradient/presets.h"

#include "catch.h"

#include <iostream>

using namespace mlo;
using namespace mlo::testing;

namespace {

struct Case {
  std::string shape = "two levels";
  Setup optimizer = {"SGD", Kind::sgd, {{}}};
  std::function<std::unique_ptr<Method>(std::size_t level)> method = [](std::size_t) {
    return one_step();
  };
  int64_t unroll = 1;  // of levels that stand on no responding level; the others take one step
  int steps = 0;       // of the top level before
  double clip_norm = 0.0;
  Schedule schedule = {};
};

struct Outcome {
  Vector engine;
  Replayed truth;
  bool clipped = true;  // every step's gradient was scaled down
  double error() const { return relative_error(engine, truth.derivative); }
};

// Responds to u, and to no other level that does.
bool is_leaf(const Shape& shape, std::size_t u, std::size_t k) {
  const auto responding = responds(shape, u);
  if (!responding[k]) return false;
  for (const std::size_t j : shape.levels[k].reads)
    if (responding[j]) return false;
  return true;
}

Outcome run(const Case& c, std::size_t u) {
  const Shape& form = shape(c.shape);
  const auto game = std::make_shared<Game>(form, GameOptions{.curved = true});
  const auto start = copied(game->parameters);
  Engine engine;
  add_levels(engine, game, [&](std::size_t k) {
    LevelOptions options;
    options.optimizer = factory(c.optimizer);
    options.unroll = is_leaf(form, u, k) ? c.unroll : 1;
    options.best_response = c.method(k);
    options.clip_norm = c.clip_norm;
    options.schedule = c.schedule;
    return options;
  });
  for (int i = 0; i < c.steps; ++i) engine.step();
  const std::size_t mark = game->log.size();
  const Tensors result = engine.hypergradient(form.levels[u].name);
  ReplayOptions options{.optimizers = std::vector<Setup>(game->levels(), c.optimizer)};
  if (c.clip_norm > 0.0) options.clip_norms.assign(game->levels(), c.clip_norm);
  if (c.schedule)
    options.schedule = [&](std::size_t step) { return c.schedule(static_cast<int64_t>(step)); };
  Outcome outcome{game->flat(u, result), replay(*game, u, start, mark, options)};
  for (std::size_t i = mark; i < game->log.size(); ++i)
    outcome.clipped &=
        c.clip_norm > 0.0 && std::abs(game->log[i].gradient.norm() - c.clip_norm) < 1e-12;
  return outcome;
}

// Those that every shape can have: one group over all parameters, whatever their number.
std::vector<Setup> one_group() {
  std::vector<Setup> result = setups();
  std::erase_if(result, [](const Setup& setup) { return setup.groups.size() > 1; });
  return result;
}

using Methods =
    std::vector<std::pair<std::string, std::function<std::unique_ptr<Method>(std::size_t)>>>;

void note(const char* what, double worst) {
  if (std::getenv("MLO_PROOF_WORST")) std::cout << worst << "  " << what << "\n";
}

}  // namespace

TEST_CASE("one step is autograd through the step, at every shape, optimizer and age") {
  const Methods methods = {
      {"kept graph", [](std::size_t) { return one_step(); }},
      {"fresh graph", [](std::size_t) { return one_step({.keep_graph = false}); }},
      {"unrolled through one", [](std::size_t) { return unrolled(); }},
  };
  double worst = 0.0;
  for (const Shape& form : shapes())
    for (const Setup& setup : one_group())
      for (const auto& [name, method] : methods)
        for (const std::size_t u : form.uppers)
          for (const int steps : {0, 2}) {
            const Outcome outcome =
                run({.shape = form.name, .optimizer = setup, .method = method, .steps = steps}, u);
            INFO(form.name << ", level " << form.levels[u].name << ", " << setup.name << ", "
                           << name << ", after " << steps);
            REQUIRE(outcome.truth.drift < 1e-13);
            CHECK(outcome.error() <= 1e-12);
            worst = std::max(worst, outcome.error());
          }
  note("one step against autograd", worst);
}

TEST_CASE("one step and unrolled through clipping, schedules and parameter groups") {
  double worst = 0.0;
  for (const auto& name : {"two levels", "chain of three", "diamond"})
    for (const Setup& setup : setups())
      for (const int64_t unroll : {1, 3})
        for (const double clip : {0.0, 0.3})
          for (const bool scheduled : {false, true}) {
            Case c{
                .shape = name, .optimizer = setup, .unroll = unroll, .steps = 2, .clip_norm = clip};
            if (unroll > 1) c.method = [](std::size_t) { return unrolled(); };
            if (scheduled) c.schedule = step_decay({.every = 1, .factor = 0.8});
            const Outcome outcome = run(c, shape(name).uppers[0]);
            INFO(name << ", " << setup.name << ", unroll " << unroll << ", clip " << clip
                      << ", schedule " << scheduled);
            REQUIRE(outcome.truth.drift < 1e-13);
            if (clip > 0.0) REQUIRE(outcome.clipped);
            CHECK(outcome.error() <= 1e-12);
            worst = std::max(worst, outcome.error());
          }
  note("clipping, schedules, groups", worst);
}

TEST_CASE("unrolled is autograd through all steps, at every shape and with every oracle") {
  const Methods methods = {
      {"fresh graph", [](std::size_t) { return unrolled(); }},
      {"kept graphs", [](std::size_t) { return unrolled(exact_oracle({.keep_graph = true})); }},
      {"differences", [](std::size_t) { return unrolled(finite_difference_oracle()); }},
  };
  double worst = 0.0, worst_differences = 0.0;
  for (const Shape& form : shapes())
    for (const Setup& setup : one_group())
      for (const auto& [name, method] : methods)
        for (const int64_t unroll : {3, 5}) {
          if (unroll > 3 && name != "fresh graph") continue;
          const Outcome outcome = run({.shape = form.name,
                                       .optimizer = setup,
                                       .method = method,
                                       .unroll = unroll,
                                       .steps = 1},
                                      form.uppers.back());
          INFO(form.name << ", " << setup.name << ", " << name << ", " << unroll << " steps");
          REQUIRE(outcome.truth.drift < 1e-13);
          const bool differences = name == "differences";
          CHECK(outcome.error() <= (differences ? 1e-6 : 1e-11));
          (differences ? worst_differences : worst) =
              std::max(differences ? worst_differences : worst, outcome.error());
        }
  note("unrolled against autograd", worst);
  note("unrolled by differences against autograd", worst_differences);
}

TEST_CASE(
    "an engine's step takes the gradient that autograd gives, at every level that has one below") {
  const Setup adam{"Adam", Kind::adam, {{}}};
  double worst = 0.0;
  for (const Shape& form : shapes())
    for (const bool kept : {true, false}) {
      const auto game = std::make_shared<Game>(form, GameOptions{.curved = true});
      const auto start = copied(game->parameters);
      Engine engine;
      add_levels(engine, game, [&](std::size_t) {
        LevelOptions options;
        options.optimizer = factory(adam);
        options.best_response = one_step({.keep_graph = kept});
        return options;
      });
      for (int i = 0; i < 2; ++i) engine.step();
      const std::size_t mark = game->log.size();
      engine.step();
      for (const std::size_t u : form.uppers) {
        const Replayed truth =
            replay(*game, u, start, mark, {.optimizers = std::vector<Setup>(game->levels(), adam)});
        INFO(form.name << ", level " << form.levels[u].name << ", kept " << kept);
        REQUIRE(truth.drift < 1e-13);
        const double error = relative_error(steps_of(*game, u).back().gradient, truth.derivative);
        CHECK(error <= 1e-12);
        worst = std::max(worst, error);
      }
    }
  note("a step's own gradient", worst);
}

TEST_CASE(
    "products are taken where each level stood before its last step, whatever has moved since") {
  const Setup sgd{"SGD", Kind::sgd, {{.lr = 0.1}}};
  double worst = 0.0;
  int elsewhere = 0;
  for (const Shape& form : shapes())
    for (const bool kept : {true, false})
      for (const std::size_t pattern : {0, 1, 2})
        for (const std::size_t u : form.uppers) {
          const auto game = std::make_shared<Game>(form, GameOptions{.curved = true});
          Engine engine;
          add_levels(engine, game, [&](std::size_t k) {
            LevelOptions options;
            options.optimizer = factory(sgd);
            options.unroll = 1 + static_cast<int64_t>((k + pattern) % 3);
            options.best_response =
                one_step({.keep_graph = kept}, {.scale = IdentityOptions::Scale::one});
            return options;
          });
          const Vector ours = game->flat(u, engine.hypergradient(form.levels[u].name)),
                       now = game->stacked();
          std::vector<Matrix> s;
          for (std::size_t k = 0; k < game->levels(); ++k)
            s.push_back(Matrix::Identity(game->size(k), game->size(k)));
          const auto formula = [&](bool before) {
            return path_sum(form, u,
                            {[&](std::size_t j) { return slope(*game, u, j, now); },
                             [&](std::size_t k, std::size_t j) {
                               return bend(*game, k, j, k,
                                           before ? steps_of(*game, k).back().x : now);
                             }},
                            s);
          };
          INFO(form.name << ", level " << form.levels[u].name << ", kept " << kept << ", pattern "
                         << pattern);
          const double error = relative_error(ours, formula(true));
          CHECK(error <= 1e-12);
          worst = std::max(worst, error);
          elsewhere += relative_error(ours, formula(false)) > 1e-3 ? 1 : 0;
        }
  CHECK(elsewhere > 60);
  note("where products are taken", worst);
}

TEST_CASE("parameters may be written between steps") {
  const Setup sgd{"SGD", Kind::sgd, {{.lr = 0.2}}};
  for (const auto& name : {"two levels", "chain of three", "diamond"}) {
    const auto game = std::make_shared<Game>(shape(name), GameOptions{.curved = true});
    const std::size_t u = game->shape.uppers[0];
    Engine engine;
    add_levels(engine, game, [&](std::size_t) {
      LevelOptions options;
      options.optimizer = factory(sgd);
      return options;
    });
    engine.build();
    for (int time = 0; time < 3; ++time) {
      for (std::size_t k = 0; k < game->levels(); ++k)
        game->set(k, 0.5 * game->part(game->stacked(), k));
      game->log.clear();
      const auto start = copied(game->parameters);
      const Vector ours = game->flat(u, engine.hypergradient("top"));
      const Replayed truth =
          replay(*game, u, start, 0, {.optimizers = std::vector<Setup>(game->levels(), sgd)});
      INFO(name << ", time " << time);
      REQUIRE(truth.drift < 1e-13);
      CHECK(relative_error(ours, truth.derivative) <= 1e-12);
      if (time > 0) engine.step();
    }
  }
}

TEST_CASE("the replay notices every fault") {
  const Setup sgd{"SGD", Kind::sgd, {{.lr = 0.3}}},
      adamw{"AdamW", Kind::adamw, {{.weight_decay = 0.2}}};
  const auto error = [](const Case& c) { return run(c, shape(c.shape).uppers.back()).error(); };
  const auto level0 = [](double factor) {
    return [factor](std::size_t k) { return faulty(one_step(), k == 0 ? factor : 1.0); };
  };
  const auto after = [](std::size_t) {
    return implicit(exact_oracle({.keep_graph = false}), identity_solver(),
                    EvaluationPoint::after_step);
  };
  const auto rate = [](std::size_t) {
    return one_step({}, {.scale = IdentityOptions::Scale::learning_rate});
  };
  for (const auto& name :
       {"two levels, no direct dependence", "chain of three, no direct dependence",
        "four levels, no direct dependence", "diamond, no direct dependence"}) {
    INFO(name);
    for (const Setup& setup : {sgd, adamw}) {
      CHECK(error({.shape = name, .optimizer = setup, .steps = 2}) <= 1e-12);
      // The wrong sign at the lowest level, its response lost, and the point after the step.
      CHECK(error({.shape = name, .optimizer = setup, .method = level0(-1.0), .steps = 2}) > 1e-3);
      CHECK(error({.shape = name, .optimizer = setup, .method = level0(0.0), .steps = 2}) > 1e-3);
      CHECK(error({.shape = name, .optimizer = setup, .method = after, .steps = 2}) > 1e-3);
    }
    // The learning rate in the place of A: right for plain SGD only.
    CHECK(error({.shape = name, .optimizer = sgd, .method = rate, .steps = 2}) <= 1e-12);
    CHECK(error({.shape = name, .optimizer = adamw, .method = rate, .steps = 2}) > 1e-3);
    CHECK(error({.shape = name, .optimizer = sgd, .method = rate, .steps = 2, .clip_norm = 0.3}) >
          1e-3);
    // The last step for three.
    CHECK(error({.shape = name, .optimizer = sgd, .unroll = 3, .steps = 2}) > 1e-3);
  }
}
