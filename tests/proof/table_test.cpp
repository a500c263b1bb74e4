// Every method × every oracle × every shape on quadratics. Methods that reach the total derivative
// are held against the implicit function theorem on all levels together; every method is held
// against its own formula, summed over paths.
#include "mlo/hypergradient/presets.h"
#include "reference.h"

#include "mlo/error.h"

#include "catch.h"

#include <iostream>
#include <map>

using namespace mlo;
using namespace mlo::testing;

namespace {

using MakeOracle = std::function<std::unique_ptr<Oracle>()>;

/// Tolerances are relative.
struct OracleRow {
  std::string name;
  MakeOracle make;
  double tolerance;
  bool analytic = false;
};

std::vector<OracleRow> oracles() {
  return {
      {"exact, kept graph", [] { return exact_oracle({.keep_graph = true}); }, 1e-12},
      {"exact, fresh", [] { return exact_oracle({.keep_graph = false}); }, 1e-12},
      {"finite difference", [] { return finite_difference_oracle(); }, 5e-9},
      {"analytic", [] { return analytic_oracle(); }, 1e-12, true},
  };
}

struct MethodRow {
  std::string name;
  Setup optimizer;  // of the levels below
  std::function<std::unique_ptr<Method>(std::unique_ptr<Oracle>)> make;
  /// S of a level, from its Hessian, its steps and the number of them since the upper level's last
  /// one.
  std::function<Matrix(const Matrix& h, const std::vector<Game::Step>& steps, std::size_t fresh)>
      response;
  bool total = false;      // reaches the total derivative
  int64_t trajectory = 0;  // goes through so many steps
  bool of_age = false;     // depends on the optimizer's state
};

Matrix inverse(const Matrix& h) { return h.inverse(); }

MethodRow solver_row(std::string name, std::function<std::unique_ptr<Solver>()> solver,
                     std::function<Matrix(const Matrix&)> s, bool total = false) {
  return {
      std::move(name),
      {"", Kind::sgd, {{.lr = 0.3}}},
      [solver](std::unique_ptr<Oracle> oracle) { return implicit(std::move(oracle), solver()); },
      [s](const Matrix& h, const auto&, std::size_t) { return s(h); },
      total};
}

std::vector<Setup> optimizers() {
  return {
      {"SGD", Kind::sgd, {{.lr = 0.3}}},
      {"momentum",
       Kind::sgd,
       {{.lr = 0.2, .momentum = 0.8, .dampening = 0.3, .weight_decay = 0.1}}},
      {"Nesterov",
       Kind::sgd,
       {{.lr = 0.2, .momentum = 0.7, .weight_decay = 0.1, .nesterov = true}}},
      {"Adam", Kind::adam, {{.lr = 0.2, .weight_decay = 0.1, .eps = 0.1}}},
      {"AdamW", Kind::adamw, {{.lr = 0.2, .weight_decay = 0.2, .eps = 0.1}}},
  };
}

std::vector<MethodRow> methods() {
  using Scale = IdentityOptions::Scale;
  std::vector<MethodRow> rows = {
      solver_row(
          "conjugate gradient to the end",
          [] {
            return conjugate_gradient_solver(
                {.max_iterations = 20, .tolerance = 1e-14, .warm_start = false});
          },
          inverse, true),
      solver_row(
          "conjugate gradient, warm",
          [] { return conjugate_gradient_solver({.max_iterations = 20, .tolerance = 1e-14}); },
          inverse, true),
      solver_row(
          "conjugate gradient, damped",
          [] { return conjugate_gradient_solver({.tolerance = 1e-14, .damping = 0.5}); },
          [](const Matrix& h) -> Matrix {
            return (h + 0.5 * Matrix::Identity(h.rows(), h.cols())).inverse();
          }),
      solver_row(
          "Neumann, 140 terms", [] { return neumann_solver({.iterations = 140, .step = 1.0}); },
          inverse, true),
      solver_row(
          "Neumann, 3 terms", [] { return neumann_solver({.iterations = 3, .step = 0.4}); },
          [](const Matrix& h) { return neumann_matrix(h, 0.4, 3); }),
      solver_row(
          "Neumann, 3 terms, step estimated",
          [] { return neumann_solver({.iterations = 3, .power_iterations = 100}); },
          [](const Matrix& h) { return neumann_matrix(h, 1.0 / (1.05 * h.operatorNorm()), 3); }),
      solver_row(
          "identity, scale one", [] { return identity_solver({.scale = Scale::one}); },
          [](const Matrix& h) { return Matrix::Identity(h.rows(), h.cols()); }),
      solver_row(
          "identity, a number",
          [] { return identity_solver({.scale = Scale::value, .value = 0.7}); },
          [](const Matrix& h) -> Matrix { return 0.7 * Matrix::Identity(h.rows(), h.cols()); }),
  };
  for (const Setup& setup : optimizers()) {
    rows.push_back({"identity, scale learning rate, " + setup.name, setup,
                    [](auto oracle) {
                      return implicit(std::move(oracle),
                                      identity_solver({.scale = Scale::learning_rate}));
                    },
                    [lr = setup.groups[0].lr](const Matrix& h, const auto&, std::size_t) -> Matrix {
                      return lr * Matrix::Identity(h.rows(), h.cols());
                    }});
    rows.push_back({"identity, scale of the step, " + setup.name, setup,
                    [](auto oracle) { return implicit(std::move(oracle), identity_solver()); },
                    [setup](const Matrix& h, const auto& steps, std::size_t) {
                      return step_response(setup, h, steps, 1);
                    },
                    false, 0, true});
    for (const int64_t steps_back : {1, 2, 5})
      rows.push_back({"unrolled through " + std::to_string(steps_back) + ", " + setup.name, setup,
                      [](auto oracle) { return unrolled(std::move(oracle)); },
                      [setup](const Matrix& h, const auto& steps, std::size_t fresh) {
                        return step_response(setup, h, steps, fresh);
                      },
                      false, steps_back, true});
  }
  return rows;
}

// Levels that no other responding level reads from below: only those may take several steps under
// an unrolled method.
bool stands_on_responding(const Shape& shape, std::size_t k) {
  for (const std::size_t u : shape.uppers) {
    const auto responding = responds(shape, u);
    for (const std::size_t j : shape.levels[k].reads)
      if (responding[k] && responding[j]) return true;
  }
  return false;
}

struct Answers {
  Vector engine, formula, total;
};

/// One engine on fresh numbers: `steps` steps, then the total derivative of level u three ways.
Answers answer(const Shape& shape, std::size_t u, const MethodRow& method, const OracleRow& oracle,
               int steps, Fault fault = Fault::none) {
  const auto game = std::make_shared<Game>(shape);
  Engine engine;
  add_levels(
      engine, game,
      [&](std::size_t k) {
        LevelOptions options;
        options.optimizer = factory(method.optimizer);
        const bool lone = method.trajectory == 0 || !stands_on_responding(shape, k);
        options.unroll = method.trajectory == 0 ? 1 + static_cast<int64_t>(k % 2)
                         : lone                 ? method.trajectory
                                                : 1;
        options.best_response = method.make(oracle.make());
        return options;
      },
      oracle.analytic);
  for (int i = 0; i < steps; ++i) engine.step();
  const std::size_t before = game->log.size();
  const Tensors result = engine.hypergradient(shape.levels[u].name);

  std::vector<Matrix> s;
  for (std::size_t k = 0; k < game->levels(); ++k) {
    std::size_t fresh = 0;
    for (std::size_t i = before; i < game->log.size(); ++i)
      fresh += game->log[i].level == k ? 1 : 0;
    s.push_back(fresh == 0 ? Matrix::Zero(game->size(k), game->size(k))
                           : method.response(game->block(k, k, k), steps_of(*game, k), fresh));
  }
  const Vector x = game->stacked();
  return {game->flat(u, result), path_sum(*game, u, x, s, fault),
          method.total ? total_derivative(*game, u, x) : Vector()};
}

bool has_linear(const Shape& shape) {
  for (const auto& level : shape.levels)
    if (level.linear != LevelShape::Linear::none) return true;
  return false;
}

}  // namespace

TEST_CASE("every method with every oracle on every shape gives its own formula") {
  std::map<std::string, double> worst;
  for (const Shape& shape : shapes())
    for (const MethodRow& method : methods()) {
      if (method.total && has_linear(shape)) continue;  // there is no inverse
      for (const OracleRow& oracle : oracles())
        for (const std::size_t u : shape.uppers)
          for (const int steps : {0, 3}) {
            if (steps == 0 && (!method.of_age || oracle.name != "exact, fresh")) continue;
            INFO(shape.name << ", level " << shape.levels[u].name << ": " << method.name << " × "
                            << oracle.name << ", after " << steps << " steps");
            const Answers a = answer(shape, u, method, oracle, steps);
            REQUIRE(a.formula.norm() > 1e-6);
            const double error = relative_error(a.engine, a.formula);
            CHECK(error <= oracle.tolerance);
            double& most = worst[method.name + " × " + oracle.name];
            most = std::max(most, error);
            if (method.total) {
              CHECK(relative_error(a.engine, a.total) <= oracle.tolerance);
              most = std::max(most, relative_error(a.engine, a.total));
            }
          }
    }
  if (std::getenv("MLO_PROOF_WORST"))
    for (const auto& [name, error] : worst) std::cout << error << "  " << name << "\n";
}

TEST_CASE("the table notices a wrong sign and a lost path") {
  const auto all = methods();
  for (const Shape& shape : shapes()) {
    if (has_linear(shape)) continue;
    for (const std::size_t u : shape.uppers)
      for (const Fault fault : {Fault::sign, Fault::lost_path}) {
        INFO(shape.name << ", fault " << static_cast<int>(fault));
        const Answers a = answer(shape, u, all.front(), oracles()[1], 1, fault);
        CHECK(relative_error(a.engine, a.formula) > 1e-3);
      }
  }
}

TEST_CASE("the table notices the wrong order of visits") {
  int wrong = 0;
  for (const Shape& shape : shapes()) {
    if (has_linear(shape)) continue;
    const std::size_t u = shape.uppers.back();
    const Game game(shape);
    std::vector<Matrix> s;
    for (std::size_t k = 0; k < game.levels(); ++k) s.push_back(game.block(k, k, k).inverse());
    const Vector x = game.stacked(), exact = total_derivative(game, u, x);

    Graph graph;
    for (const auto& level : shape.levels)
      graph.nodes.push_back({level.name, level.reads, {}, level.top});
    Indices order = graph.responding(u);
    INFO(shape.name);
    CHECK(relative_error(dense_sweep(game, u, x, s, order), exact) < 1e-12);
    std::reverse(order.begin(), order.end());
    if (!stands_on_responding(shape, order.front()) && !stands_on_responding(shape, order.back()))
      continue;  // no order
    CHECK(relative_error(dense_sweep(game, u, x, s, order), exact) > 1e-3);
    ++wrong;
  }
  CHECK(wrong >= 10);
}

TEST_CASE(
    "the table notices the learning rate in the place of A under AdamW, and A without its "
    "history") {
  const auto all = methods();
  const auto& rate = *std::find_if(all.begin(), all.end(), [](const auto& row) {
    return row.name == "identity, scale learning rate, AdamW";
  });
  MethodRow mixed = *std::find_if(all.begin(), all.end(), [](const auto& row) {
    return row.name == "identity, scale of the step, AdamW";
  });
  mixed.make = rate.make;
  for (const auto& name : {"two levels", "chain of three", "diamond"}) {
    const Answers a = answer(shape(name), shape(name).uppers[0], mixed, oracles()[1], 3);
    CHECK(relative_error(a.engine, a.formula) > 1e-3);
  }
  MethodRow forgetful = *std::find_if(all.begin(), all.end(), [](const auto& row) {
    return row.name == "identity, scale of the step, AdamW";
  });
  forgetful.response = [setup = forgetful.optimizer](const Matrix& h, const auto& steps,
                                                     std::size_t) {
    return step_response(setup, h, {steps.back()}, 1);
  };
  for (const auto& name : {"two levels", "chain of three", "diamond"}) {
    const Answers a = answer(shape(name), shape(name).uppers[0], forgetful, oracles()[1], 3);
    CHECK(relative_error(a.engine, a.formula) > 1e-3);
  }
}
