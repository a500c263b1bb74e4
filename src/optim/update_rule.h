#pragma once

#include "mlo/optim/step_derivative.h"
#include "mlo/tensors.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace torch::optim {
class Optimizer;
}

namespace mlo {

/// ĝ = c·g with c = (largest norm)/‖g‖: ∂ĝ/∂g = c(I − ggᵀ/‖g‖²), symmetric, over all parameters of
/// the level together.
class Clipping {
 public:
  Clipping() = default;  ///< not active: ĝ = g
  /// g as it was before it was scaled, and before a hook has added to it.
  /// Factor 1: not active.
  Clipping(double factor, Tensors gradient) : factor_(factor) {
    if (factor != 1.0) gradient_ = std::move(gradient);
  }
  /// a ← (∂ĝ/∂g) a in place.
  void apply(Tensors& a) const;

 private:
  double factor_ = 1.0;
  Tensors gradient_;
};

/// The formulas of one class of optimizer. Made once a level; SGD (momentum, dampening, Nesterov,
/// weight decay), Adam and AdamW without AMSGrad are known.
class UpdateRule {
 public:
  virtual ~UpdateRule() = default;

  /// The optimizer's eps, below which gradients hardly move parameters; 0 if it has none.
  virtual double epsilon() const { return 0.0; }

  /// Null if the optimizer's class (or an option of it) is not known; `why` then says what it is
  /// and what is known.
  static std::unique_ptr<UpdateRule> of(torch::optim::Optimizer& optimizer,
                                        const Tensors& parameters, std::string& why);

  /// Called with the gradients the optimizer is about to read and its state before the step. The
  /// result keeps what `apply` needs if `scale`, what `reverse` needs if `trajectory`; it may share
  /// storage with `gradients`, which the caller does not change afterwards.
  virtual std::shared_ptr<const StepDerivative> observe(const Tensors& parameters,
                                                        const Tensors& gradients,
                                                        const Clipping& clipping, bool scale,
                                                        bool trajectory) = 0;
};

}  // namespace mlo
