#include "precompiled.h"

#include "mlo/error.h"
#include "mlo/hypergradient/solver.h"
#include "text.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
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
    double step = options_.step;
    if (step == 0.0) {
      const double largest = std::abs(largest_eigenvalue(system, a, options_.power_iterations));
      step = largest > 0.0 ? 1.0 / (kRoom * largest) : 1.0;  // H = 0: nothing to go by
    }
    while (true) {
      summary.iterations = 0;
      Tensors z;
      const double largest = sum(system, a, step, z, summary);
      if (largest == 0.0) return z;
      if (options_.step > 0.0)
        refuse<Error>(
            "level {}: the Neumann series diverges: with NeumannOptions::step = {}, term {} is "
            "longer than the one before, so the largest eigenvalue of the Hessian is at least "
            "{:.6g}; the step must be below 2 over it, or 0 to have it estimated",
            quoted(system.level()), step, summary.iterations + 1, largest);
      step = 1.0 / (kRoom * largest);
    }
  }

 private:
  static constexpr double kRoom = 1.05;  // estimates of the largest eigenvalue come from below

  // The series into z; 0, or what its growth shows the largest eigenvalue of H to be at least.
  double sum(const LinearSystem& system, const Tensors& a, double step, Tensors& z,
             SolveSummary& summary) const {
    // p_j = (I − αH)ʲ a;  z = α Σ p_j. The residual a − Hz is the term after the last one.
    Tensors p = clone(a);
    z = scaled(a, step);
    const double size = norm(a);
    double last = size;
    for (int64_t j = 0; j < options_.iterations; ++j) {
      const Tensors before = p;
      Tensors next = clone(p);
      add_scaled(next, system.hessian(p), -step);
      const double now = norm(next);
      if (!std::isfinite(now))
        refuse<NonFiniteError>(
            "level {}: a Hessian product in the Neumann series is not finite; look for a square "
            "root, logarithm or division at zero in its loss",
            quoted(system.level()));
      if (now > last * (1.0 + 1e-6)) {
        // H is symmetric, so a growing term proves an eigenvalue of αH outside [0, 2]. Beyond 2 the
        // terms change sign, but the first that grows need not yet: then, unless the curvature
        // along it is negative, the largest eigenvalue decides.
        const double along = dot(next, before);
        if (along < 0.0) return (1.0 + now / last) / step;
        if (along < last * last) {
          const double largest =
              largest_eigenvalue(system, next, std::max<int64_t>(10, options_.power_iterations));
          if (step * largest > 2.0) return largest;
        }
        summary.reason = SolveSummary::Reason::negative_curvature;
        summary.residual = now / size;
        summary.warning = message(
            "level {}: the Neumann series for level {} met curvature < 0 and ends after {} of "
            "{} terms: the level is not at a minimum along that direction; train it longer "
            "(unroll, warmup_steps), add weight decay to its loss, or use mlo::cg() with damping",
            quoted(system.level()), quoted(system.upper()), j, options_.iterations);
        break;
      }
      p = std::move(next);
      last = now;
      add_scaled(z, p, step);
      ++summary.iterations;
    }
    return 0.0;
  }

  // The largest by magnitude, from below, by power iterations. From the adjoint alone they would
  // not see a direction that it has next to nothing of, and that the series brings up later.
  static double largest_eigenvalue(const LinearSystem& system, const Tensors& a,
                                   int64_t iterations) {
    auto generator = at::detail::createCPUGenerator(/*seed_val=*/1);
    Tensors v;
    for (const auto& tensor : a)
      v.push_back(at::randn(tensor.sizes(), generator, at::TensorOptions(tensor.scalar_type()))
                      .to(tensor.device()));
    scale(v, 1.0 / norm(v));
    add_scaled(v, a,
               (dot(v, a) < 0.0 ? -1.0 : 1.0) / norm(a));  // in one dimension the two would cancel
    scale(v, 1.0 / norm(v));
    double largest = 0.0;
    for (int64_t i = 0; i < iterations; ++i) {
      Tensors product = system.hessian(v);
      const double size = norm(product);
      if (!std::isfinite(size))
        refuse<NonFiniteError>(
            "level {}: a Hessian product in the power iteration is not finite; look for a square "
            "root, logarithm or division at zero in its loss",
            quoted(system.level()));
      if (size == 0.0) return 0.0;
      largest = std::copysign(size, dot(v, product));
      v = scaled(product, 1.0 / size);
    }
    return largest;
  }

  NeumannOptions options_;
};

}  // namespace

void NeumannOptions::validate() const {
  require(iterations >= 0, "NeumannOptions::iterations = {}; it must be at least 0", iterations);
  require(std::isfinite(step) && step >= 0.0,
          "NeumannOptions::step = {}; it must be positive and finite, or 0 to be estimated", step);
  require(power_iterations >= 1, "NeumannOptions::power_iterations = {}; it must be at least 1",
          power_iterations);
}

std::unique_ptr<Solver> neumann_solver(NeumannOptions options) {
  return std::make_unique<Neumann>(options);
}

}  // namespace mlo
