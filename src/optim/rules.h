#pragma once

#include "optim/update_rule.h"

#include <torch/optim/optimizer.h>

/// The known rules, and what they share. Reading the optimizer's own state at every step, instead
/// of following it, keeps them right through a loaded checkpoint, a schedule and skipped
/// parameters.
namespace mlo::detail {

/// The parameters of a level as their optimizer sees them.
class OptimizerView {
 public:
  /// `groups[i]`: the parameter group that parameter i is in.
  OptimizerView(torch::optim::Optimizer& optimizer, std::vector<size_t> groups)
      : optimizer_(&optimizer), groups_(std::move(groups)) {}

  template <class Options>
  const Options& options(size_t i) const {
    return static_cast<const Options&>(optimizer_->param_groups()[groups_[i]].options());
  }
  /// Null before the parameter's first step.
  template <class ParamState>
  const ParamState* state(const at::Tensor& parameter) const {
    const auto found = optimizer_->state().find(parameter.unsafeGetTensorImpl());
    return found == optimizer_->state().end() ? nullptr
                                              : static_cast<const ParamState*>(found->second.get());
  }

 private:
  torch::optim::Optimizer* optimizer_;
  std::vector<size_t> groups_;
};

/// The adjoints of an optimizer's moments are zero until the last step has been reversed.
inline void fill_with_zeros(std::vector<Tensors>& moments, size_t count, const Tensors& like) {
  while (moments.size() < count) {
    moments.push_back(zeros_like(like));
  }
}

std::unique_ptr<UpdateRule> sgd_rule(OptimizerView view);
std::unique_ptr<UpdateRule> adam_rule(OptimizerView view);
std::unique_ptr<UpdateRule> adamw_rule(OptimizerView view);

}  // namespace mlo::detail
