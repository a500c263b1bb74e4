#include "precompiled.h"

#include "mlo/error.h"
#include "mlo/hypergradient/solver.h"

#include <cmath>

namespace mlo {
namespace {

class Neumann final : public Solver {
 public:
  explicit Neumann(NeumannOptions options) : options_(options) { options_.validate(); }

  std::string name() const override { return "Neumann"; }

  Tensors solve(const LinearSystem& system, const Tensors& a, SolveSummary& summary) override {
    summary = {.reason = SolveSummary::Reason::iterations};
    const double size = norm(a);
    if (size == 0.0) {
      summary.reason = SolveSummary::Reason::converged;
      return clone(a);
    }
    const double step = options_.step > 0.0 ? options_.step : estimated_step(system, a);

    // p_j = (I − αH)ʲ a;  z = α Σ p_j. The residual a − Hz is the term after the last one.
    Tensors p = clone(a);
    Tensors z = scaled(a, step);
    double last = size;
    for (int64_t j = 0; j < options_.iterations; ++j) {
      const Tensors before = p;
      Tensors next = clone(p);
      add_scaled(next, system.hessian(p), -step);
      const double now = norm(next);
      if (!std::isfinite(now))
        throw NonFiniteError("level '" + system.level() + "': a Hessian product in the Neumann series is not finite");
      if (now > last * (1.0 + 1e-6)) {
        // H is symmetric, so a growing term proves an eigenvalue of αH outside [0, 2]: beyond 2 the terms change sign.
        if (dot(next, before) < 0.0)
          throw Error("level '" + system.level() + "': the Neumann series diverges: with step " + std::to_string(step) +
                      " term " + std::to_string(j + 1) + " is " + std::to_string(now / last) +
                      " times the one before, so the largest eigenvalue of the Hessian is above 2/step = " +
                      std::to_string(2.0 / step) + "; use a smaller NeumannOptions::step, or 0 to have it estimated");
        summary.reason = SolveSummary::Reason::negative_curvature;
        break;
      }
      p = std::move(next);
      last = now;
      add_scaled(z, p, step);
      ++summary.iterations;
    }
    return z;
  }

 private:
  // 1/λ by power iterations from the adjoint; 5 % of room because the estimate comes from below.
  double estimated_step(const LinearSystem& system, const Tensors& a) const {
    Tensors v = scaled(a, 1.0 / norm(a));
    double largest = 0.0;
    for (int64_t i = 0; i < options_.power_iterations; ++i) {
      Tensors product = system.hessian(v);
      largest = norm(product);
      if (largest == 0.0) return 1.0;  // H a = 0: every step gives the same
      v = scaled(product, 1.0 / largest);
    }
    if (!std::isfinite(largest))
      throw NonFiniteError("level '" + system.level() + "': a Hessian product in the power iteration is not finite");
    return 1.0 / (1.05 * largest);
  }

  NeumannOptions options_;
};

}  // namespace

void NeumannOptions::validate() const {
  if (iterations < 0) throw ConfigError("NeumannOptions: iterations = " + std::to_string(iterations) + "; it must be >= 0");
  if (!(step >= 0.0) || !std::isfinite(step))
    throw ConfigError("NeumannOptions: step = " + std::to_string(step) + "; it must be positive, or 0 to be estimated");
  if (power_iterations < 1)
    throw ConfigError("NeumannOptions: power_iterations = " + std::to_string(power_iterations) + "; it must be >= 1");
}

std::unique_ptr<Solver> neumann_solver(NeumannOptions options) { return std::make_unique<Neumann>(options); }

}  // namespace mlo
