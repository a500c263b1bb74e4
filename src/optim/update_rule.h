#pragma once

#include "mlo/tensors.h"

#include <memory>
#include <string>
#include <vector>

namespace torch::optim {
class Optimizer;
}

namespace mlo {

/// The derivative of one optimizer step θ' = θ − U(ĝ), ĝ = c·g the (clipped) gradient, for given state before the step. One tensor a
/// parameter throughout; a parameter without a gradient in that step was skipped by the optimizer.
class StepDerivative {
 public:
  virtual ~StepDerivative() = default;

  /// A a with A = (∂U/∂g)ᵀ, clipping included: what the identity solver's `optimizer` scale multiplies by (design: for
  /// Adam a diagonal, for SGD a number, with active clipping times c(I − ĝĝᵀ/‖ĝ‖²)). Zero for a skipped parameter.
  virtual Tensors apply(const Tensors& a) const = 0;
  /// The learning rate of each parameter at that step.
  virtual const std::vector<double>& learning_rates() const = 0;

  /// Reverse mode through the step. In: theta = θ̄', moments = adjoints of the optimizer's moments after the step (empty
  /// before the last step is reversed: zeros). Out: returns ḡ, the adjoint of the raw gradient g; theta becomes the
  /// direct part of θ̄ (with weight decay, without H ḡ); moments become the adjoints of the moments before the step.
  /// Needs `trajectory` at observe.
  virtual Tensors reverse(Tensors& theta, std::vector<Tensors>& moments) const = 0;
};

/// The formulas of one class of optimizer. Made once a level; SGD (momentum, dampening, Nesterov, weight decay), Adam and
/// AdamW without AMSGrad are known.
class UpdateRule {
 public:
  virtual ~UpdateRule() = default;

  /// The optimizer's eps, below which gradients hardly move parameters; 0 if it has none.
  virtual double epsilon() const { return 0.0; }

  /// Null if the optimizer's class (or an option of it) is not known; `why` then says what it is and what is known.
  static std::unique_ptr<UpdateRule> of(torch::optim::Optimizer& optimizer, const Tensors& parameters, std::string& why);

  /// Called with the gradients the optimizer is about to read and its state before the step. clip: factor the raw
  /// gradient was multiplied by (1: clipping not active). The result keeps what `apply` needs if `scale`, what `reverse`
  /// needs if `trajectory`; it may share storage with `gradients`, which the caller does not change afterwards.
  virtual std::shared_ptr<const StepDerivative> observe(const Tensors& parameters, const Tensors& gradients, double clip,
                                                        bool scale, bool trajectory) = 0;
};

}  // namespace mlo
