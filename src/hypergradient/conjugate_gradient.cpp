#include "precompiled.h"

#include "mlo/error.h"
#include "mlo/hypergradient/solver.h"
#include "text.h"

#include <cmath>
#include <map>
#include <sstream>

namespace mlo {
namespace {

/// The combination of iterates with the smallest residual (minimal residual smoothing, Zhou and
/// Walker 1994): the residual never rises, and an iterate that is far off, as those before a
/// direction of negative curvature are, gets next to no weight.
class Smoothed {
 public:
  Smoothed(const Tensors& z, const Tensors& r) : z_(clone(z)), r_(clone(r)), rr_(dot(r, r)) {}

  void add(const Tensors& z, const Tensors& r, double rr) {
    const double cross = dot(r_, r);
    const double distance = rr - 2.0 * cross + rr_;
    if (!(distance > 0.0)) return;
    const double weight = (rr_ - cross) / distance;
    scale(z_, 1.0 - weight);
    add_scaled(z_, z, weight);
    scale(r_, 1.0 - weight);
    add_scaled(r_, r, weight);
    rr_ = dot(r_, r_);
  }

  Tensors take() { return std::move(z_); }
  double residual() const { return std::sqrt(rr_); }

 private:
  Tensors z_, r_;
  double rr_;
};

class ConjugateGradient final : public Solver {
 public:
  explicit ConjugateGradient(ConjugateGradientOptions options) : options_(options) {
    options_.validate();
  }

  std::string name() const override { return "conjugate gradient"; }

  Tensors solve(const LinearSystem& system, const Tensors& a, SolveSummary& summary) override {
    using Reason = SolveSummary::Reason;
    summary = {.reason = Reason::iterations};
    const double size = norm(a);
    if (size == 0.0) {
      summary.reason = Reason::converged;
      return clone(a);
    }
    Tensors z = zeros_like(a), r = clone(a);
    double rr = size * size;
    const bool warm = start(system, a, z, r, rr);
    bool begun = warm;
    Smoothed smoothed(z, r);
    Tensors p = clone(r);

    while (true) {
      summary.residual = std::sqrt(rr) / size;
      if (!std::isfinite(summary.residual))
        refuse<NonFiniteError>(
            "level {}: a Hessian product in conjugate gradient is not finite; look for a square "
            "root, logarithm or division at zero in its loss",
            quoted(system.level()));
      if (summary.residual <= options_.tolerance) {
        summary.reason = Reason::converged;
        break;
      }
      if (summary.iterations == options_.max_iterations) break;
      const Tensors hp = damped(system, p);
      const double curvature = dot(p, hp);
      const double bent = norm(hp);
      // So near to zero its sign is rounding's, and a step of that length would overflow.
      if (curvature <= 1e-7 * norm(p) * bent) {
        summary.reason = Reason::negative_curvature;
        if (!begun) {  // rather than nothing at all; its residual is at most 2
          const double length = bent > 0.0 ? size / bent : 1.0;
          z = scaled(a, length);
          add_scaled(r, hp, -length);
          summary.residual = norm(r) / size;
        }
        break;
      }
      const double alpha = rr / curvature;
      add_scaled(z, p, alpha);
      add_scaled(r, hp, -alpha);
      const double rr_next = dot(r, r);
      scale(p, rr_next / rr);
      add_scaled(p, r);
      rr = rr_next;
      if (std::isfinite(rr)) smoothed.add(z, r, rr);
      begun = true;
      ++summary.iterations;
    }

    const double reached = summary.residual;
    const bool indefinite = summary.reason == Reason::negative_curvature;
    if (begun && (indefinite || reached > 1.0)) {
      z = smoothed.take();
      summary.residual = smoothed.residual() / size;
    }
    if (warm && indefinite) {
      SolveSummary afresh;
      Tensors cold = solve(system, a, afresh);  // the warm start is forgotten
      afresh.iterations += summary.iterations;
      if (afresh.residual < summary.residual) {
        summary = afresh;
        return cold;
      }
      previous_.erase(system.upper());
    }
    if (indefinite || reached > 1.0) summary.warning = warning(system, summary, reached);
    if (options_.warm_start && !indefinite) previous_[system.upper()] = clone(z);
    return z;
  }

  void save(State& state, const std::string& prefix) const override {
    std::string uppers;
    for (const auto& [upper, z] : previous_) {
      uppers += upper + "\n";
      const std::string key = message("{}warm_start/{}/", prefix, upper);
      state.set(key + "size", static_cast<int64_t>(z.size()));
      for (std::size_t i = 0; i < z.size(); ++i) state.set(message("{}{}", key, i), z[i].clone());
    }
    state.set(prefix + "warm_start", uppers);
  }

  void load(const State& state, const std::string& prefix) override {
    previous_.clear();
    if (!state.has(prefix + "warm_start"))
      return;  // of state version 1, which does not say whose it is
    std::istringstream uppers(state.text(prefix + "warm_start"));
    for (std::string upper; std::getline(uppers, upper);) {
      const std::string key = message("{}warm_start/{}/", prefix, upper);
      const int64_t size = state.integer(key + "size");
      for (int64_t i = 0; i < size; ++i)
        previous_[upper].push_back(state.tensor(message("{}{}", key, i)).clone());
    }
  }

 private:
  // The upper level's last z, if it is better than nothing. The system changes between its steps,
  // with mini-batches a lot. True if z was taken. What is not taken, or is not stored again at the
  // end, is forgotten.
  bool start(const LinearSystem& system, const Tensors& a, Tensors& z, Tensors& r, double& rr) {
    const auto found = previous_.find(system.upper());
    if (found == previous_.end()) return false;
    Tensors last = std::move(found->second);
    previous_.erase(found);
    Tensors residual = clone(a);
    add_scaled(residual, damped(system, last), -1.0);
    const double left = dot(residual, residual);
    // One that is hardly better than nothing has its error along other directions than the adjoint,
    // where the iterations that are left may be too few.
    if (!(left < 0.25 * rr)) return false;
    z = std::move(last);
    r = std::move(residual);
    rr = left;
    return true;
  }

  Tensors damped(const LinearSystem& system, const Tensors& v) const {
    Tensors product = system.hessian(v);
    if (options_.damping > 0.0) add_scaled(product, v, options_.damping);
    return product;
  }

  static std::string warning(const LinearSystem& system, const SolveSummary& summary,
                             double reached) {
    if (summary.reason == SolveSummary::Reason::negative_curvature)
      return message(
          "level {}: conjugate gradient for level {} met curvature <= 0 after {} iterations: "
          "the level is not at a minimum along that direction, and what is returned solves the "
          "rest, with a residual of {:.3g} of the adjoint's norm; train the level longer (unroll, "
          "warmup_steps), add weight decay to its loss, or give ConjugateGradientOptions::damping",
          quoted(system.level()), quoted(system.upper()), summary.iterations, summary.residual);
    return message(
        "level {}: conjugate gradient for level {} has a residual of {:.3g} times the "
        "adjoint's norm after {} iterations: the Hessian is ill-conditioned or not definite, and "
        "what is returned is the combination of iterates with the smallest residual, {:.3g}; give "
        "more max_iterations, or ConjugateGradientOptions::damping",
        quoted(system.level()), quoted(system.upper()), reached, summary.iterations,
        summary.residual);
  }

  ConjugateGradientOptions options_;
  std::map<std::string, Tensors> previous_;  // by upper level: its last z
};

}  // namespace

void ConjugateGradientOptions::validate() const {
  require(max_iterations >= 1,
          "ConjugateGradientOptions::max_iterations = {}; it must be at least 1", max_iterations);
  require(tolerance >= 0.0, "ConjugateGradientOptions::tolerance = {}; it must be at least 0",
          tolerance);
  require(std::isfinite(damping) && damping >= 0.0,
          "ConjugateGradientOptions::damping = {}; it must be finite and at least 0", damping);
}

std::unique_ptr<Solver> conjugate_gradient_solver(ConjugateGradientOptions options) {
  return std::make_unique<ConjugateGradient>(options);
}

}  // namespace mlo
