#include "optim/rules.h"
#include "tensors/elementwise.h"

#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>

namespace mlo::detail {
namespace {

/// d = ĝ (Adam: + wd·θ);  m = β₁m₀ + (1−β₁)d;  v = β₂v₀ + (1−β₂)d²;  c_i = 1 − β_iᵗ;  s = √(v/c₂);
/// θ' = (1 − lr·wd)θ − lr·(m/c₁)/(s + ε), where Adam's factor on θ is 1.
struct AdamStep {
  bool skipped = false;
  double lr = 0, beta1 = 0, beta2 = 0, eps = 0, c1 = 1, c2 = 1;
  double coupled = 0;    ///< Adam's weight decay
  double decoupled = 0;  ///< AdamW's

  template <class T>
  T root(const T& d, const T& v0) const {
    using std::sqrt;
    using C = Constant<T>;
    return sqrt((C(beta2) * v0 + C(1 - beta2) * d * d) / C(c2));
  }

  /// A = −∂θ'/∂d = lr/c₁ · [(1−β₁)β₂v₀ − β₁(1−β₂)m₀d + (1−β₁)c₂εs] / [c₂ s (s+ε)²], and
  /// lr(1−β₁)/(c₁ε) where s = 0. In the textbook form two terms all but cancel at small ε: at t =
  /// 1, A is lr·ε/(|d|+ε)². Here numerator and denominator are divided by s² besides, because s³
  /// underflows in float32 for gradients of 1e-13.
  template <class T>
  T scale(const T& d, const T& m0, const T& v0) const {
    using C = Constant<T>;
    const T s = root(d, v0);
    const T p = C(1) / s;
    const T q = C(1) / (s + C(eps));
    const T bracket = C((1 - beta1) * beta2) * ((v0 * p) * p) -
                      C(beta1 * (1 - beta2)) * ((m0 * p) * (d * p)) + C((1 - beta1) * c2 * eps) * p;
    return select(s > C(0), T(C(lr / (c1 * c2)) * bracket * (s * q) * q),
                  C(lr * (1 - beta1) / (c1 * eps)));
  }

  /// From the adjoints of θ', m and v to those of θ (direct part), m₀, v₀ and d. Where s = 0, v is
  /// 0 and stays so: a unit that is dead passes nothing, where plain autograd through the square
  /// root gives not-a-number.
  template <class T>
  std::array<T, 4> reverse(const T& u, const T& m_after, const T& v_after, const T& m0, const T& v0,
                           const T& d) const {
    using C = Constant<T>;
    const T s = root(d, v0);
    const T q = C(1) / (s + C(eps));
    const T m = C(beta1) * m0 + C(1 - beta1) * d;
    const T m_bar = m_after - C(lr / c1) * u * q;
    const T v_bar =
        v_after + select(s > C(0), T(C(lr / (2 * c1 * c2)) * u * (m / s) * q * q), C(0));
    const T d_bar = C(1 - beta1) * m_bar + C(2 * (1 - beta2)) * d * v_bar;
    return {C(1 - lr * decoupled) * u + C(coupled) * d_bar, C(beta1) * m_bar, C(beta2) * v_bar,
            d_bar};
  }
};

/// The tensors of one step that outlive it; what was not asked for stays empty.
struct AdamRecord {
  Tensors scale;      ///< A
  Tensors m0, v0, d;  ///< the trajectory
};

class AdamDerivative final : public StepDerivative {
 public:
  AdamDerivative(std::vector<AdamStep> steps, std::vector<double> learning_rates, AdamRecord record,
                 Clipping clipping)
      : steps_(std::move(steps)),
        learning_rates_(std::move(learning_rates)),
        record_(std::move(record)),
        clipping_(std::move(clipping)) {}

  Tensors apply(const Tensors& a) const override {
    TORCH_INTERNAL_ASSERT(record_.scale.size() == a.size(),
                          "StepDerivative::apply needs a step observed with `scale`");
    Tensors result(a.size());
    for (size_t i = 0; i < a.size(); ++i) {
      const auto times = []<class T>(const T& x, const T& scale) {
        return std::array<T, 1>{x * scale};
      };
      result[i] = steps_[i].skipped ? at::zeros_like(a[i])
                                    : elementwise<1>(times, a[i], record_.scale[i])[0];
    }
    clipping_.apply(result);
    return result;
  }

  const std::vector<double>& learning_rates() const override { return learning_rates_; }

  Tensors reverse(Tensors& theta, std::vector<Tensors>& moments) const override {
    TORCH_INTERNAL_ASSERT(record_.d.size() == theta.size(),
                          "StepDerivative::reverse needs a step observed with `trajectory`");
    fill_with_zeros(moments, 2, theta);
    Tensors gradient(theta.size());
    for (size_t i = 0; i < theta.size(); ++i) {
      if (steps_[i].skipped) {
        gradient[i] = at::zeros_like(theta[i]);
        continue;
      }
      const auto adjoint = [step = steps_[i]]<class T>(const T& u, const T& m, const T& v,
                                                       const T& m0, const T& v0, const T& d) {
        return step.reverse(u, m, v, m0, v0, d);
      };
      auto out = elementwise<4>(adjoint, theta[i], moments[0][i], moments[1][i], record_.m0[i],
                                record_.v0[i], record_.d[i]);
      theta[i] = std::move(out[0]);
      moments[0][i] = std::move(out[1]);
      moments[1][i] = std::move(out[2]);
      gradient[i] = std::move(out[3]);
    }
    clipping_.apply(gradient);
    return gradient;
  }

 private:
  std::vector<AdamStep> steps_;
  std::vector<double> learning_rates_;
  AdamRecord record_;
  Clipping clipping_;
};

template <class Options, class ParamState, bool decoupled>
class AdamRule final : public UpdateRule {
 public:
  explicit AdamRule(OptimizerView view) : view_(std::move(view)) {}

  double epsilon() const override { return view_.template options<Options>(0).eps(); }

  std::shared_ptr<const StepDerivative> observe(const Tensors& parameters, const Tensors& gradients,
                                                const Clipping& clipping, bool scale,
                                                bool trajectory) override {
    const at::NoGradGuard no_grad;
    const size_t n = parameters.size();
    std::vector<AdamStep> steps(n);
    std::vector<double> learning_rates(n);
    AdamRecord record;
    record.scale.resize(scale ? n : 0);
    for (auto* list : {&record.m0, &record.v0, &record.d}) {
      list->resize(trajectory ? n : 0);
    }
    for (size_t i = 0; i < n; ++i) {
      const auto& options = view_.options<Options>(i);
      learning_rates[i] = options.lr();
      if (!gradients[i].defined()) {
        steps[i].skipped = true;
        continue;
      }
      const auto* state = view_.state<ParamState>(parameters[i]);
      steps[i] = step_of(options, state ? state->step() + 1 : 1);
      if (!scale && !trajectory) {
        continue;
      }
      at::Tensor d = gradients[i].detach();
      if (!decoupled && options.weight_decay() != 0) {
        const auto decay = [wd = options.weight_decay()]<class T>(const T& g, const T& theta) {
          return std::array<T, 1>{g + Constant<T>(wd) * theta};
        };
        d = elementwise<1>(decay, d, parameters[i])[0];
      }
      const auto m0 = state ? state->exp_avg() : at::zeros_like(d),
                 v0 = state ? state->exp_avg_sq() : m0;
      if (scale) {
        const auto formula = [step = steps[i]]<class T>(const T& g, const T& m, const T& v) {
          return std::array<T, 1>{step.scale(g, m, v)};
        };
        record.scale[i] = elementwise<1>(formula, d, m0, v0)[0];
      }
      if (trajectory) {
        // The optimizer moves its state in place.
        record.m0[i] = state ? m0.clone() : m0;
        record.v0[i] = state ? v0.clone() : v0;
        record.d[i] = d;
      }
    }
    return std::make_shared<AdamDerivative>(std::move(steps), std::move(learning_rates),
                                            std::move(record), clipping);
  }

 private:
  static AdamStep step_of(const Options& options, int64_t t) {
    const auto [beta1, beta2] = options.betas();
    const auto time = static_cast<double>(t);
    return {.lr = options.lr(),
            .beta1 = beta1,
            .beta2 = beta2,
            .eps = options.eps(),
            .c1 = 1 - std::pow(beta1, time),
            .c2 = 1 - std::pow(beta2, time),
            .coupled = decoupled ? 0.0 : options.weight_decay(),
            .decoupled = decoupled ? options.weight_decay() : 0.0};
  }

  OptimizerView view_;
};

}  // namespace

std::unique_ptr<UpdateRule> adam_rule(OptimizerView view) {
  namespace optim = torch::optim;
  return std::make_unique<AdamRule<optim::AdamOptions, optim::AdamParamState, false>>(
      std::move(view));
}

std::unique_ptr<UpdateRule> adamw_rule(OptimizerView view) {
  namespace optim = torch::optim;
  return std::make_unique<AdamRule<optim::AdamWOptions, optim::AdamWParamState, true>>(
      std::move(view));
}

}  // namespace mlo::detail
