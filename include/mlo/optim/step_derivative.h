#pragma once

#include "mlo/tensors.h"

#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// The derivative of one optimizer step θ' = θ − U(ĝ; m, θ), with the moments m before it, the
/// options and the (clipped) gradient ĝ that it was taken with. One tensor a parameter of the level
/// throughout; a parameter without a gradient in that step was skipped by the optimizer. Found in
/// `StepRecord::derivative` by a method or solver whose `needs()` ask for it.
///
///     clipping     ĝ = κ g with κ = (largest norm)/‖g‖ over all parameters together: ∂ĝ/∂g = κ (I
///     − ĝĝᵀ/‖ĝ‖²); not active: ĝ = g SGD          d = ĝ + wd θ;  U = lr d, or with momentum b = μ
///     b₀ + (1 − τ) d (first step: b = d), U = lr b, Nesterov lr (d + μ b) Adam, AdamW  d = ĝ + wd
///     θ, AdamW d = ĝ;  m = β₁ m₀ + (1 − β₁) d;  v = β₂ v₀ + (1 − β₂) d²;  c_i = 1 − β_iᵗ;  s =
///     √(v/c₂);
///                  U = lr (m/c₁)/(s + ε), AdamW + lr wd θ
///                  ∂U/∂ĝ = (lr/c₁) [(1 − β₁)/(s + ε) − (1 − β₂) m d/(c₂ s (s + ε)²)] elementwise;
///                  where s = 0: lr (1 − β₁)/(c₁ ε)
class StepDerivative {
 public:
  virtual ~StepDerivative() = default;

  /// A a with A = (∂U/∂g)ᵀ, clipping included: what the identity solver's scale `optimizer`
  /// multiplies by. Needs `Needs::update_derivative`.
  virtual Tensors apply(const Tensors& a) const = 0;
  /// The learning rate of each parameter at that step.
  virtual const std::vector<double>& learning_rates() const = 0;

  /// Reverse mode through the step. In: theta = θ̄', moments = adjoints of the optimizer's moments
  /// after the step (empty before the last step is reversed: zeros). Out: returns ḡ, the adjoint of
  /// the raw gradient g; theta becomes the direct part of θ̄ (with weight decay, without H ḡ);
  /// moments become the adjoints of the moments before the step. Needs
  /// `Needs::optimizer_trajectory`.
  virtual Tensors reverse(Tensors& theta, std::vector<Tensors>& moments) const = 0;
};

}  // namespace mlo
#pragma GCC visibility pop
