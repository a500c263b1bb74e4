// Implicit methods on curved games: against the implicit function theorem and differences of
// re-solved lower levels, and the orders in which the errors of differences, of the Neumann series
// and of unsolved lower levels vanish.
#include "curved.h"
#include "mlo/hypergradient/presets.h"

#include "catch.h"

#include <iostream>

using namespace mlo;
using namespace mlo::testing;

namespace {

using MakeMethod = std::function<std::unique_ptr<Method>()>;

const Setup kStill{"standing still", Kind::sgd, {{.lr = 0.0}}};
const MakeMethod kSolved = [] {
  return cg({.max_iterations = 100, .tolerance = 1e-14, .warm_start = false},
            {.keep_graph = false});
};

// dL_u/dθ_u by an engine whose lower levels stand where the game's parameters put them.
Vector standing(const std::shared_ptr<Game>& game, std::size_t u, const MakeMethod& method) {
  Engine engine;
  add_levels(engine, game, [&](std::size_t) {
    LevelOptions options;
    options.optimizer = factory(kStill);
    options.best_response = method();
    return options;
  });
  return game->flat(u, engine.hypergradient(game->shape.levels[u].name));
}

void put(Game& game, const Vector& x) {
  for (std::size_t k = 0; k < game.levels(); ++k) game.set(k, game.part(x, k));
}

bool solvable(const Shape& shape) {
  for (const auto& level : shape.levels)
    if (level.linear != LevelShape::Linear::none) return false;
  return true;
}

// Slope of log(error) over log(radius), by least squares.
double order(const std::vector<double>& radii, const std::vector<double>& errors) {
  const auto n = static_cast<Eigen::Index>(radii.size());
  Matrix a(n, 2);
  Vector y(n);
  for (Eigen::Index i = 0; i < n; ++i) {
    a.row(i) << 1.0, std::log(radii[static_cast<std::size_t>(i)]);
    y[i] = std::log(errors[static_cast<std::size_t>(i)]);
  }
  return a.colPivHouseholderQr().solve(y)[1];
}

void note(const std::string& what, double value) {
  if (std::getenv("MLO_PROOF_WORST")) std::cout << value << "  " << what << "\n";
}

// Tells how well the library estimates the error of its differences.
class Estimate final : public Method {
 public:
  Estimate(double constant, double& ratio) : constant_(constant), ratio_(ratio) {}
  std::string name() const override { return "estimate"; }
  Needs needs() const override { return {.second_order = true}; }
  void visit(Visit& visit) override {
    const FiniteDifferenceOptions options{.constant = constant_,
                                          .radius = FiniteDifferenceOptions::Radius::norm};
    const Tensors v = clone(visit.adjoint());
    const auto probe = visit.probe(visit.steps() - 1, EvaluationPoint::before_step);
    const double estimate = finite_difference_error(*probe, visit.targets(), v, options);
    Tensors gap = finite_difference_oracle(options)
                      ->linearize(*probe, visit.targets())
                      ->product(v, Linearization::Wrt::targets);
    probe->shift(0.0, v);
    add_scaled(gap,
               exact_oracle({.keep_graph = false})
                   ->linearize(*probe, visit.targets())
                   ->product(v, Linearization::Wrt::targets),
               -1.0);
    ratio_ = estimate / norm(gap);
  }

 private:
  double constant_;
  double& ratio_;
};

}  // namespace

TEST_CASE(
    "conjugate gradient at solved lower levels is the implicit function theorem, and the "
    "differences of re-solved levels") {
  double worst = 0.0, worst_differences = 0.0;
  for (const Shape& form : shapes()) {
    if (!solvable(form)) continue;
    const std::size_t u = form.uppers.back();
    const auto game = std::make_shared<Game>(form, GameOptions{.curved = true});
    const Vector x = settled(*game, u, game->stacked());
    put(*game, x);
    const Vector engine = standing(game, u, kSolved), theorem = implicit_derivative(*game, u, x);
    INFO(form.name);
    CHECK(relative_error(engine, theorem) <= 1e-10);
    worst = std::max(worst, relative_error(engine, theorem));

    Vector differences(game->size(u));
    const auto moved = [&](Eigen::Index i, double by) {
      Vector there = x;
      there[game->offset(u) + i] += by;
      return loss_at(*game, u, settled(*game, u, there));
    };
    const double h = 1e-3;
    for (Eigen::Index i = 0; i < differences.size(); ++i)
      differences[i] =
          (8.0 * (moved(i, h) - moved(i, -h)) - (moved(i, 2 * h) - moved(i, -2 * h))) / (12.0 * h);
    CHECK(relative_error(engine, differences) <= 1e-8);
    worst_differences = std::max(worst_differences, relative_error(engine, differences));

    // Both notice half a response, and the derivative with the levels below held.
    const Vector wrong = standing(game, u, [] { return faulty(kSolved(), 0.5); }),
                 held = slope(*game, u, u, x);
    for (const Vector& other : {wrong, held}) {
      CHECK(relative_error(other, theorem) > 1e-3);
      CHECK(relative_error(other, differences) > 1e-3);
    }
  }
  note("cg against the implicit function theorem", worst);
  note("cg against differences of re-solved levels", worst_differences);
}

TEST_CASE(
    "the error of an implicit hypergradient falls linearly with the distance of the lower levels "
    "from their optima") {
  for (const auto& name : {"two levels", "chain of three", "diamond"}) {
    const std::size_t u = shape(name).uppers[0];
    const auto game = std::make_shared<Game>(shape(name), GameOptions{.curved = true});
    const Vector x = settled(*game, u, game->stacked()), exact = implicit_derivative(*game, u, x);
    std::mt19937_64 random(7);
    Vector direction = random_matrix(x.size(), 1, random);
    direction.segment(game->offset(u), game->size(u)).setZero();
    direction.normalize();
    const std::vector<double> distances = {1e-2, 3e-3, 1e-3, 3e-4, 1e-4};
    std::vector<double> errors;
    for (const double distance : distances) {
      put(*game, x + distance * direction);
      errors.push_back(relative_error(standing(game, u, kSolved), exact));
    }
    INFO(name);
    CHECK(order(distances, errors) == Approx(1.0).margin(0.1));
    CHECK(errors.front() > 1e-4);
    note(std::string("order in the distance, ") + name, order(distances, errors));
  }
}

TEST_CASE("the error of differences falls with the square of the radius") {
  using Radius = FiniteDifferenceOptions::Radius;
  const std::vector<double> radii = {1e-1, 3e-2, 1e-2, 3e-3};
  for (const auto& name : {"two levels", "chain of three", "diamond"})
    for (const Radius radius : {Radius::relative, Radius::norm})
      for (const bool iterate : {false, true}) {
        const std::size_t u = shape(name).uppers[0];
        const auto game = std::make_shared<Game>(shape(name), GameOptions{.curved = true});
        const auto method = [&](std::unique_ptr<Oracle> oracle) {
          return implicit(std::move(oracle),
                          iterate ? neumann_solver({.iterations = 3, .step = 0.2})
                                  : identity_solver({.scale = IdentityOptions::Scale::one}));
        };
        const Vector exact = standing(game, u, [&] { return method(exact_oracle()); });
        std::vector<double> errors;
        for (const double c : radii)
          errors.push_back(relative_error(
              standing(game, u,
                       [&] {
                         return method(finite_difference_oracle({.constant = c, .radius = radius}));
                       }),
              exact));
        INFO(name << ", radius " << static_cast<int>(radius) << ", iterated " << iterate);
        CHECK(order(radii, errors) == Approx(2.0).margin(0.2));
        CHECK(errors.front() > 1e-6);
        note(std::string("order of differences, ") + name, order(radii, errors));
      }
}

TEST_CASE(
    "the default radius leaves an error near rounding, and the estimate of the error is near the "
    "error") {
  for (const auto& name : {"two levels", "chain of three", "diamond"}) {
    const std::size_t u = shape(name).uppers[0];
    const auto game = std::make_shared<Game>(shape(name), GameOptions{.curved = true});
    const IdentityOptions one{.scale = IdentityOptions::Scale::one};
    const double error = relative_error(standing(game, u, [&] { return darts({}, one); }),
                                        standing(game, u, [&] { return one_step({}, one); }));
    CHECK(error <= 1e-8);
    note("differences with the default radius", error);
  }
  for (const double constant : {0.1, 0.03, 0.01}) {
    double ratio = 0.0;
    standing(std::make_shared<Game>(shape("two levels"), GameOptions{.curved = true}), 1,
             [&] { return std::make_unique<Estimate>(constant, ratio); });
    CHECK(ratio == Approx(1.0).margin(0.1));
    note("estimated over true error", ratio);
  }
}

TEST_CASE("the error of the Neumann series falls by 1 − αλ a term, λ the smallest eigenvalue") {
  for (const double condition : {4.0, 8.0})
    for (const double alpha : {1.0, 0.5}) {
      const auto game =
          std::make_shared<Game>(shape("two levels"), GameOptions{.condition = condition});
      const Vector exact = total_derivative(*game, 1, game->stacked());
      const auto error = [&](int64_t terms) {
        return relative_error(
            standing(game, 1, [&] { return neumann({.iterations = terms, .step = alpha}); }),
            exact);
      };
      const double rate = std::pow(error(60) / error(30), 1.0 / 30.0);
      INFO("condition " << condition << ", step " << alpha);
      CHECK(rate == Approx(1.0 - alpha / condition).epsilon(0.01));
      note("rate of Neumann", rate);
    }
}
