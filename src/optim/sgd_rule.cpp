#include "optim/rules.h"
#include "tensors/elementwise.h"

#include <torch/optim/sgd.h>

namespace mlo::detail {
namespace {

/// d = ĝ + wd·θ;  b = μ·b₀ + (1−τ)·d, at the first step b = d;  θ' = θ − lr·b, with Nesterov θ −
/// lr·(d + μ·b), without momentum θ − lr·d. Linear in everything: the derivative is a few numbers
/// for each parameter.
struct SgdStep {
  bool skipped = false;
  bool buffer = false;    ///< has momentum
  double b_by_b0 = 0;     ///< ∂b/∂b₀
  double b_by_d = 0;      ///< ∂b/∂d
  double theta_by_b = 0;  ///< −∂θ'/∂b
  double theta_by_d = 0;  ///< −∂θ'/∂d at fixed b
  double weight_decay = 0;

  SgdStep(const torch::optim::SGDOptions& options, bool first)
      : buffer(options.momentum() != 0), weight_decay(options.weight_decay()) {
    const double lr = options.lr(), mu = options.momentum();
    theta_by_d = !buffer || options.nesterov() ? lr : 0.0;
    theta_by_b = options.nesterov() ? lr * mu : lr;
    b_by_b0 = first ? 0.0 : mu;
    b_by_d = first ? 1.0 : 1.0 - options.dampening();
  }
  SgdStep() : skipped(true) {}

  double scale() const { return skipped ? 0.0 : theta_by_d + (buffer ? theta_by_b * b_by_d : 0.0); }
};

class SgdDerivative final : public StepDerivative {
 public:
  SgdDerivative(std::vector<SgdStep> steps, std::vector<double> learning_rates, Clipping clipping)
      : steps_(std::move(steps)),
        learning_rates_(std::move(learning_rates)),
        clipping_(std::move(clipping)) {}

  Tensors apply(const Tensors& a) const override {
    Tensors result(a.size());
    for (size_t i = 0; i < a.size(); ++i) {
      const double scale = steps_[i].scale();
      result[i] = elementwise<1>(
          [scale]<class T>(const T& x) { return std::array<T, 1>{Constant<T>(scale) * x}; },
          a[i])[0];
    }
    clipping_.apply(result);
    return result;
  }

  const std::vector<double>& learning_rates() const override { return learning_rates_; }

  Tensors reverse(Tensors& theta, std::vector<Tensors>& moments) const override {
    if (std::any_of(steps_.begin(), steps_.end(),
                    [](const SgdStep& step) { return step.buffer; })) {
      fill_with_zeros(moments, 1, theta);
    }
    Tensors gradient(theta.size());
    for (size_t i = 0; i < theta.size(); ++i) {
      const SgdStep& step = steps_[i];
      if (step.skipped) {
        gradient[i] = at::zeros_like(theta[i]);
      } else if (step.buffer) {
        const auto adjoint = [step]<class T>(const T& u, const T& b_after) {
          using C = Constant<T>;
          const T b = b_after - C(step.theta_by_b) * u;
          const T d = C(step.b_by_d) * b - C(step.theta_by_d) * u;
          return std::array<T, 3>{u + C(step.weight_decay) * d, C(step.b_by_b0) * b, d};
        };
        auto out = elementwise<3>(adjoint, theta[i], moments[0][i]);
        theta[i] = std::move(out[0]);
        moments[0][i] = std::move(out[1]);
        gradient[i] = std::move(out[2]);
      } else {
        const auto adjoint = [step]<class T>(const T& u) {
          using C = Constant<T>;
          return std::array<T, 2>{C(1 - step.weight_decay * step.theta_by_d) * u,
                                  C(-step.theta_by_d) * u};
        };
        auto out = elementwise<2>(adjoint, theta[i]);
        theta[i] = std::move(out[0]);
        gradient[i] = std::move(out[1]);
      }
    }
    clipping_.apply(gradient);
    return gradient;
  }

 private:
  std::vector<SgdStep> steps_;
  std::vector<double> learning_rates_;
  Clipping clipping_;
};

class SgdRule final : public UpdateRule {
 public:
  explicit SgdRule(OptimizerView view) : view_(std::move(view)) {}

  std::shared_ptr<const StepDerivative> observe(const Tensors& parameters, const Tensors& gradients,
                                                const Clipping& clipping, bool /*scale*/,
                                                bool /*trajectory*/) override {
    std::vector<SgdStep> steps(parameters.size());
    std::vector<double> learning_rates(parameters.size());
    for (size_t i = 0; i < parameters.size(); ++i) {
      const auto& options = view_.options<torch::optim::SGDOptions>(i);
      learning_rates[i] = options.lr();
      if (gradients[i].defined()) {
        steps[i] =
            SgdStep(options, view_.state<torch::optim::SGDParamState>(parameters[i]) == nullptr);
      }
    }
    return std::make_shared<SgdDerivative>(std::move(steps), std::move(learning_rates), clipping);
  }

 private:
  OptimizerView view_;
};

}  // namespace

std::unique_ptr<UpdateRule> sgd_rule(OptimizerView view) {
  return std::make_unique<SgdRule>(std::move(view));
}

}  // namespace mlo::detail
