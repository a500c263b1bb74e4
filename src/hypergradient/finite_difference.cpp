#include "precompiled.h"

#include "hypergradient/product_inputs.h"
#include "mlo/error.h"
#include "mlo/hypergradient/oracle.h"

#include <algorithm>
#include <cmath>

namespace mlo {
namespace {

using Radius = FiniteDifferenceOptions::Radius;

// ε such that no tensor moves by more than the fraction c of its size, where a nearly zero tensor counts with a tenth of
// the level's root mean square.
double relative_radius(double c, const Tensors& theta, const Tensors& v) {
  double squares = 0.0;
  std::vector<double> theta_norms;
  theta_norms.reserve(theta.size());
  for (const auto& tensor : theta) {
    theta_norms.push_back(norm({tensor}));
    squares += theta_norms.back() * theta_norms.back();
  }
  const double rms = std::sqrt(squares / static_cast<double>(std::max<int64_t>(numel(theta), 1)));
  double largest = 0.0;
  for (std::size_t i = 0; i < theta.size(); ++i) {
    const double v_norm = norm({v[i]});
    if (v_norm == 0.0) continue;
    const double size = std::max(theta_norms[i], 0.1 * rms * std::sqrt(static_cast<double>(theta[i].numel())));
    // All parameters zero: there is no scale to be relative to; one unit a coordinate serves.
    largest = std::max(largest, v_norm / (size > 0.0 ? size : std::sqrt(static_cast<double>(theta[i].numel()))));
  }
  return largest > 0.0 ? c / largest : 0.0;
}

double radius(const FiniteDifferenceOptions& options, const Tensors& theta, const Tensors& v) {
  if (options.radius == Radius::norm) {
    const double size = norm(v);
    return size > 0.0 ? (options.constant > 0.0 ? options.constant : 0.01) / size : 0.0;
  }
  const bool all_double =
      std::all_of(theta.begin(), theta.end(), [](const auto& tensor) { return tensor.scalar_type() == at::kDouble; });
  return relative_radius(options.constant > 0.0 ? options.constant : (all_double ? 1e-5 : 3e-3), theta, v);
}

// D(ε) = [∇L(θ+εv) − ∇L(θ−εv)] / 2ε with respect to `inputs`.
Tensors central_difference(Probe& probe, const Tensors& inputs, const Tensors& v, double epsilon) {
  probe.shift(epsilon, v);
  const Tensors plus = probe.gradient(inputs);
  probe.shift(-epsilon, v);
  const Tensors minus = probe.gradient(inputs);
  const at::NoGradGuard no_grad;
  Tensors difference(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!plus[i].defined() && !minus[i].defined()) continue;
    difference[i] = !minus[i].defined() ? plus[i] : !plus[i].defined() ? -minus[i] : plus[i] - minus[i];
    difference[i].div_(2.0 * epsilon);
  }
  return difference;
}

void refuse_narrow(const Probe& probe) {
  for (const auto& parameter : probe.parameters())
    if (parameter.element_size() < 4)
      throw UnsupportedError("level '" + probe.level_name() + "': finite differences of parameters in " +
                             std::string(c10::toString(parameter.scalar_type())) +
                             " are rounding noise; keep the parameters in float32 and compute in autocast, or use "
                             "mlo::one_step()");
}

class DifferenceLinearization final : public Linearization {
 public:
  DifferenceLinearization(Probe& probe, const Tensors& targets, const FiniteDifferenceOptions& options)
      : probe_(probe), targets_(targets), options_(options) {}

  Tensors product(const Tensors& v, Wrt wrt, bool /*last*/) override {
    const Tensors inputs = product_inputs(probe_, targets_, wrt);
    probe_.shift(0.0, v);  // the radius is relative to the recorded values
    const double epsilon = radius(options_, probe_.parameters(), v);
    if (epsilon == 0.0 || inputs.empty()) return Tensors(inputs.size());  // v = 0
    return central_difference(probe_, inputs, v, epsilon);
  }

 private:
  Probe& probe_;
  const Tensors& targets_;
  const FiniteDifferenceOptions options_;
};

class DifferenceOracle final : public Oracle {
 public:
  explicit DifferenceOracle(FiniteDifferenceOptions options) : options_(options) { options_.validate(); }
  std::string name() const override { return "finite difference"; }
  Needs needs() const override { return {.differences = true}; }
  std::unique_ptr<Linearization> linearize(Probe& probe, const Tensors& targets) const override {
    refuse_narrow(probe);
    return std::make_unique<DifferenceLinearization>(probe, targets, options_);
  }

 private:
  FiniteDifferenceOptions options_;
};

}  // namespace

void FiniteDifferenceOptions::validate() const {
  if (!(constant >= 0.0) || !std::isfinite(constant))
    throw ConfigError("FiniteDifferenceOptions: constant = " + std::to_string(constant) +
                      "; it must be positive, or 0 for the default of the dtype");
}

std::unique_ptr<Oracle> finite_difference_oracle(FiniteDifferenceOptions options) {
  return std::make_unique<DifferenceOracle>(options);
}

double finite_difference_error(Probe& probe, const Tensors& targets, const Tensors& v, FiniteDifferenceOptions options) {
  options.validate();
  refuse_narrow(probe);
  probe.shift(0.0, v);
  const double epsilon = radius(options, probe.parameters(), v);
  if (epsilon == 0.0) return 0.0;
  const Tensors fine = widened(central_difference(probe, targets, v, epsilon), targets);
  Tensors gap = widened(central_difference(probe, targets, v, 2.0 * epsilon), targets);
  add_scaled(gap, fine, -1.0);
  probe.shift(0.0, v);
  return norm(gap) / 3.0;
}

}  // namespace mlo
