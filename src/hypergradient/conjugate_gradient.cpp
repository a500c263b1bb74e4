#include "precompiled.h"

#include "mlo/error.h"
#include "mlo/hypergradient/solver.h"

#include <cmath>

namespace mlo {
namespace {

class ConjugateGradient final : public Solver {
 public:
  explicit ConjugateGradient(ConjugateGradientOptions options) : options_(options) { options_.validate(); }

  std::string name() const override { return "conjugate gradient"; }

  Tensors solve(const LinearSystem& system, const Tensors& a, SolveSummary& summary) override {
    summary = {.reason = SolveSummary::Reason::iterations};
    const double size = norm(a);
    if (size == 0.0) {
      summary.reason = SolveSummary::Reason::converged;
      return clone(a);
    }
    const bool warm = options_.warm_start && !previous_.empty();
    Tensors z = warm ? clone(previous_) : zeros_like(a);
    Tensors r = clone(a);
    if (warm) add_scaled(r, damped(system, z), -1.0);
    Tensors p = clone(r);
    double rr = dot(r, r);

    while (true) {
      summary.residual = std::sqrt(rr) / size;
      if (!std::isfinite(summary.residual))
        throw NonFiniteError("level '" + system.level() + "': a Hessian product in conjugate gradient is not finite");
      if (summary.residual <= options_.tolerance) {
        summary.reason = SolveSummary::Reason::converged;
        break;
      }
      if (summary.iterations == options_.max_iterations) break;
      const Tensors hp = damped(system, p);
      const double curvature = dot(p, hp);
      if (curvature <= 0.0) {
        summary.reason = SolveSummary::Reason::negative_curvature;
        // Nothing reached yet: the gradient step whose length |curvature| gives, rather than nothing at all.
        if (summary.iterations == 0 && !warm) z = scaled(a, curvature < 0.0 ? rr / -curvature : 1.0);
        break;
      }
      const double alpha = rr / curvature;
      add_scaled(z, p, alpha);
      add_scaled(r, hp, -alpha);
      const double rr_next = dot(r, r);
      scale(p, rr_next / rr);
      add_scaled(p, r);
      rr = rr_next;
      ++summary.iterations;
    }
    if (options_.warm_start) previous_ = clone(z);
    return z;
  }

  void save(State& state, const std::string& prefix) const override {
    state.set(prefix + "warm_start/size", static_cast<int64_t>(previous_.size()));
    for (std::size_t i = 0; i < previous_.size(); ++i) state.set(prefix + "warm_start/" + std::to_string(i), previous_[i].clone());
  }

  void load(const State& state, const std::string& prefix) override {
    previous_.clear();
    const int64_t size = state.integer(prefix + "warm_start/size");
    for (int64_t i = 0; i < size; ++i) previous_.push_back(state.tensor(prefix + "warm_start/" + std::to_string(i)).clone());
  }

 private:
  Tensors damped(const LinearSystem& system, const Tensors& v) const {
    Tensors product = system.hessian(v);
    if (options_.damping > 0.0) add_scaled(product, v, options_.damping);
    return product;
  }

  ConjugateGradientOptions options_;
  Tensors previous_;  // the last outer step's z
};

}  // namespace

void ConjugateGradientOptions::validate() const {
  if (max_iterations < 1)
    throw ConfigError("ConjugateGradientOptions: max_iterations = " + std::to_string(max_iterations) + "; it must be >= 1");
  if (!(tolerance >= 0.0)) throw ConfigError("ConjugateGradientOptions: tolerance = " + std::to_string(tolerance) + "; it must be >= 0");
  if (!(damping >= 0.0) || !std::isfinite(damping))
    throw ConfigError("ConjugateGradientOptions: damping = " + std::to_string(damping) + "; it must be >= 0 and finite");
}

std::unique_ptr<Solver> conjugate_gradient_solver(ConjugateGradientOptions options) {
  return std::make_unique<ConjugateGradient>(options);
}

}  // namespace mlo
