// Solvers alone, on a dense H: what they return, and why they say they stopped.
#include "mlo/hypergradient/solver.h"
#include "quadratic.h"

#include "mlo/error.h"

#include "catch.h"

using namespace mlo;
using namespace mlo::testing;
using Reason = SolveSummary::Reason;

namespace {

class Dense final : public Linearization {
 public:
  explicit Dense(Matrix h) : h_(std::move(h)) {}
  Tensors product(const Tensors& v, Wrt, bool) override {
    ++products;
    return {to_tensor(h_ * to_vector(v[0])).view({-1})};
  }
  int products = 0;

 private:
  Matrix h_;
};

struct Problem6 {
  explicit Problem6(Matrix matrix) : h(std::move(matrix)), linearization(h) {}
  Vector solve(Solver& solver) {
    return to_vector(solver.solve(system, {to_tensor(a).view({-1})}, summary)[0]);
  }

  Matrix h;
  Vector a = Vector::LinSpaced(6, -1.0, 2.0);
  Dense linearization;
  StepRecord record;
  Tensors parameters = {at::zeros({6}, at::kDouble)};
  LinearSystem system{linearization, record, parameters, "low"};
  SolveSummary summary;
};

Matrix definite(double condition = 10.0) {
  std::mt19937_64 random(3);
  return random_definite(6, condition, random);
}

Matrix indefinite() {
  std::mt19937_64 random(4);
  const Matrix basis = Eigen::HouseholderQR<Matrix>(random_matrix(6, 6, random)).householderQ();
  Vector values = Vector::LinSpaced(6, 0.2, 1.0);
  values[0] = -0.5;
  return basis * values.asDiagonal() * basis.transpose();
}

}  // namespace

TEST_CASE("conjugate gradient says why it stopped") {
  Problem6 problem(definite());
  const Vector exact = problem.h.inverse() * problem.a;
  const auto solver =
      conjugate_gradient_solver({.max_iterations = 50, .tolerance = 1e-12, .warm_start = false});
  CHECK(relative_error(problem.solve(*solver), exact) < 1e-11);
  CHECK(problem.summary.reason == Reason::converged);
  CHECK(problem.summary.iterations <= 7);
  CHECK(problem.summary.residual <= 1e-12);

  const auto short_of_it = conjugate_gradient_solver({.max_iterations = 2, .tolerance = 1e-12});
  const Vector z = problem.solve(*short_of_it);
  CHECK(problem.summary.reason == Reason::iterations);
  CHECK(problem.summary.iterations == 2);
  CHECK(problem.summary.residual == Approx((problem.h * z - problem.a).norm() / problem.a.norm()));
  CHECK(relative_error(z, exact) > 1e-3);

  problem.a.setZero();
  CHECK(problem.solve(*solver).norm() == 0.0);
  CHECK(problem.summary.reason == Reason::converged);
}

TEST_CASE(
    "conjugate gradient with a warm start gives the same at each of ten calls where H is not "
    "definite") {
  Problem6 problem(indefinite());
  const auto warm = conjugate_gradient_solver({});
  const auto cold = conjugate_gradient_solver({.warm_start = false});
  const Vector first = problem.solve(*cold);
  for (int call = 0; call < 10; ++call) {
    CHECK(relative_error(problem.solve(*warm), first) < 1e-12);
    CHECK(problem.summary.reason == Reason::negative_curvature);
    CHECK(problem.summary.residual ==
          Approx((problem.h * first - problem.a).norm() / problem.a.norm()));
    CHECK(problem.summary.residual < 1.0);
    CHECK(problem.summary.warning.find("curvature") != std::string::npos);
  }
}

TEST_CASE("conjugate gradient takes a stored solution only if it is better than none") {
  Problem6 problem(definite(100.0));
  const auto solver = conjugate_gradient_solver({.max_iterations = 3, .tolerance = 1e-12});
  const auto cold =
      conjugate_gradient_solver({.max_iterations = 3, .tolerance = 1e-12, .warm_start = false});
  problem.solve(*solver);
  problem.a = -problem.a;  // the stored one points the wrong way
  const Vector expected = problem.solve(*cold);
  CHECK(relative_error(problem.solve(*solver), expected) < 1e-12);
  const auto energy = [&](const Vector& z) {
    return 0.5 * z.dot(problem.h * z) - z.dot(problem.a);
  };
  CHECK(energy(problem.solve(*solver)) < energy(expected));  // now it points the right way
}

TEST_CASE("conjugate gradient does not begin with what is hardly better than nothing") {
  Problem6 problem(definite(100.0));
  const auto warm = conjugate_gradient_solver({.max_iterations = 3, .tolerance = 1e-12});
  const auto cold =
      conjugate_gradient_solver({.max_iterations = 3, .tolerance = 1e-12, .warm_start = false});
  const Vector a = problem.a;
  for (const double factor : {1.4, 5.0}) {
    problem.a = a;
    problem.solve(*conjugate_gradient_solver({}));
    const Vector stored = problem.solve(*warm);
    problem.a = factor * a;  // the stored one leaves more than half of it, where the factor is 5
    const double left = (problem.a - problem.h * stored).norm() / problem.a.norm();
    INFO("left " << left);
    REQUIRE((left > 0.5) == (factor == 5.0));
    CHECK((relative_error(problem.solve(*warm), problem.solve(*cold)) < 1e-12) == (left > 0.5));
  }
}

TEST_CASE("conjugate gradient begins anew where a warm start meets curvature <= 0 at once") {
  Matrix h = Matrix::Identity(6, 6);
  h(0, 0) = 0.5;
  Problem6 problem(h);
  problem.a = Vector::Ones(6);
  problem.a[0] = 0.7;
  const auto warm = conjugate_gradient_solver({});
  const auto cold = conjugate_gradient_solver({.warm_start = false});
  const Vector stored = problem.solve(*warm);
  h(0, 0) = -0.3;
  Problem6 bent(h);
  bent.a = problem.a;
  const double left = (bent.a - bent.h * stored).norm() / bent.a.norm();
  REQUIRE(left < 0.5);  // so it is taken
  const Vector z = bent.solve(*warm);
  const double residual = bent.summary.residual;
  bent.solve(*cold);
  INFO("stored " << left << ", warm " << residual << ", cold " << bent.summary.residual);
  CHECK(residual <= bent.summary.residual * (1.0 + 1e-9));
  CHECK(residual < left);
  CHECK((bent.a - bent.h * z).norm() / bent.a.norm() == Approx(residual));
}

TEST_CASE("conjugate gradient returns no iterate that is worse than nothing") {
  // One direction whose curvature is next to nothing: the step along it is a thousand times too
  // long.
  Matrix h = Vector::LinSpaced(6, 0.5, 1.0).asDiagonal();
  h(0, 0) = -0.5;
  for (const double shift : {0.0, 1e-3, 1e-6, 1e-12, -1e-6}) {
    Problem6 problem(h);
    problem.a = Vector::Ones(6);
    problem.a[0] = std::sqrt(8.0 - 2.0 * shift);  // aᵀHa = shift
    const auto solver = conjugate_gradient_solver({.max_iterations = 1, .warm_start = false});
    const Vector z = problem.solve(*solver);
    INFO("shift " << shift << ", aHa " << problem.a.dot(problem.h * problem.a) << ", residual "
                  << problem.summary.residual);
    CHECK(z.norm() > 0.0);
    CHECK(z.norm() < 10.0);
    CHECK(problem.summary.residual <= (problem.summary.iterations > 0 ? 1.0 : 2.0));
    CHECK(problem.summary.residual ==
          Approx((problem.h * z - problem.a).norm() / problem.a.norm()));
  }
  // All curvatures positive and the residual above one, as of an ill-conditioned level: a shorter
  // step, and a warning.
  Problem6 ill(Vector{{1.0, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6}}.asDiagonal());
  ill.a = Vector::Ones(6);
  const auto solver = conjugate_gradient_solver({.max_iterations = 2});
  const Vector z = ill.solve(*solver);
  CHECK(ill.summary.reason == Reason::iterations);
  CHECK(ill.summary.residual <= 1.0);
  CHECK(ill.summary.residual == Approx((ill.h * z - ill.a).norm() / ill.a.norm()));
  CHECK(z.dot(ill.a) > 0.0);
  CHECK(ill.summary.warning.find("max_iterations") != std::string::npos);
}

TEST_CASE("conjugate gradient with damping solves the damped system") {
  Problem6 problem(definite(1e4));
  const auto solver =
      conjugate_gradient_solver({.max_iterations = 50, .tolerance = 1e-13, .damping = 0.3});
  const Matrix damped = problem.h + 0.3 * Matrix::Identity(6, 6);
  CHECK(relative_error(problem.solve(*solver), damped.inverse() * problem.a) < 1e-12);
}

TEST_CASE("conjugate gradient stops at negative curvature with what it has") {
  Problem6 problem(indefinite());
  const auto solver =
      conjugate_gradient_solver({.max_iterations = 50, .tolerance = 1e-12, .warm_start = false});
  const Vector z = problem.solve(*solver);
  CHECK(problem.summary.reason == Reason::negative_curvature);
  CHECK(z.allFinite());
  CHECK(z.dot(problem.a) > 0.0);  // still a direction of ascent

  Problem6 concave(-definite());
  CHECK(relative_error(concave.solve(*solver),
                       concave.a.norm() / (concave.h * concave.a).norm() * concave.a) < 1e-12);
  CHECK(concave.summary.reason == Reason::negative_curvature);
  CHECK(concave.summary.iterations == 0);
}

TEST_CASE("conjugate gradient begins with the last solution, also after save and load") {
  Problem6 problem(definite());
  const ConjugateGradientOptions options{.max_iterations = 50, .tolerance = 1e-10};
  const auto solver = conjugate_gradient_solver(options);
  const Vector z = problem.solve(*solver);
  const auto first = problem.summary.iterations;
  REQUIRE(first >= 4);
  problem.solve(*solver);
  CHECK(problem.summary.iterations <= 1);

  State state;
  solver->save(state, "low/");
  const auto loaded = conjugate_gradient_solver(options);
  loaded->load(state, "low/");
  CHECK(relative_error(problem.solve(*loaded), z) < 1e-9);
  CHECK(problem.summary.iterations <= 1);
  const auto cold =
      conjugate_gradient_solver({.max_iterations = 50, .tolerance = 1e-10, .warm_start = false});
  problem.solve(*cold);
  problem.solve(*cold);
  CHECK(problem.summary.iterations == first);
}

TEST_CASE("a Neumann series that diverges is an error, with the largest step that would do") {
  Problem6 problem(definite());
  const auto solver = neumann_solver({.iterations = 50, .step = 2.5});
  CHECK_THROWS_WITH(problem.solve(*solver), Contains("diverges") && Contains("'low'"));
  const auto converging = neumann_solver({.iterations = 400, .step = 1.5});
  CHECK(relative_error(problem.solve(*converging), problem.h.inverse() * problem.a) < 1e-10);
  CHECK(problem.linearization.products >= 400);
}

TEST_CASE("a Neumann series ends at negative curvature and says so") {
  Problem6 problem(indefinite());
  const auto solver = neumann_solver({.iterations = 200, .step = 0.9});
  const Vector z = problem.solve(*solver);
  CHECK(problem.summary.reason == Reason::negative_curvature);
  CHECK(problem.summary.iterations < 200);
  CHECK(z.norm() < 100.0 * problem.a.norm());
}

TEST_CASE("a Neumann series finds its step") {
  Problem6 problem(1e3 * definite());
  const auto solver = neumann_solver({.iterations = 300});
  CHECK(relative_error(problem.solve(*solver), problem.h.inverse() * problem.a) < 1e-8);
  Problem6 flat(Matrix::Zero(6, 6));
  CHECK(flat.solve(*solver).allFinite());
}

TEST_CASE(
    "a Neumann series with an estimated step does not overshoot where the adjoint has next to "
    "nothing") {
  for (const double small : {1e-6, 1e-12, 0.0}) {
    Problem6 problem(Vector{{1.0, 0.8, 3.0, 1.0, 0.9, 0.7}}.asDiagonal());
    problem.a = Vector{{1.0, 1.0, small, 1.0, 1.0, 1.0}};
    for (const int64_t iterations : {10, 100, 400}) {
      const auto solver = neumann_solver({.iterations = iterations});
      const Vector z = problem.solve(*solver);
      CHECK(problem.summary.reason == Reason::iterations);
      if (iterations == 400) CHECK(relative_error(z, problem.h.inverse() * problem.a) < 1e-10);
    }
    // Too few power iterations to see it: the series shows it, and begins anew.
    const auto rough = neumann_solver({.iterations = 400, .power_iterations = 1});
    CHECK(relative_error(problem.solve(*rough), problem.h.inverse() * problem.a) < 1e-10);
    CHECK(problem.summary.iterations == 400);
  }
  Problem6 steep(Vector{{1.0, 0.8, 3.0, 1.0, 0.9, 1e3}}.asDiagonal());
  steep.a[5] = 1e-9;
  const auto rough = neumann_solver({.iterations = 20000, .power_iterations = 1});
  CHECK(relative_error(steep.solve(*rough), steep.h.inverse() * steep.a) < 1e-6);
}

TEST_CASE(
    "a given Neumann step that is too long is told from negative curvature, with a bound that "
    "holds") {
  Problem6 problem(Vector{{0.01, 0.02, 3.0, 0.01, 0.01, 0.01}}.asDiagonal());
  problem.a = Vector{
      {1.0, 1.0, 1e-2, 1.0, 1.0, 1.0}};  // the first term to grow does not change its sign yet
  const auto solver = neumann_solver({.iterations = 50, .step = 0.9});
  CHECK_THROWS_WITH(problem.solve(*solver),
                    Contains("diverges") && Contains("step = 0.9") && Contains("is at least 3"));
  Problem6 negative(Vector{{1.0, 0.02, -5.0, 0.01, 0.01, 0.01}}.asDiagonal());
  negative.solve(*solver);
  CHECK(negative.summary.reason == Reason::negative_curvature);
  CHECK(negative.summary.warning.find("'low'") != std::string::npos);
}
