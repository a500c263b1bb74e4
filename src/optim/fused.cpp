#include "optim/fused.h"

#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <map>
#include <vector>

namespace mlo::detail {
namespace {

using Tensors = std::vector<at::Tensor>;

bool fits(const at::Tensor& parameter) {
  const at::Tensor& gradient = parameter.grad();
  if (!gradient.defined()) return true;
  return parameter.is_contiguous() && gradient.is_contiguous() &&
         gradient.scalar_type() == parameter.scalar_type() &&
         (parameter.is_cpu() || parameter.is_cuda());
}

bool all_fit(const torch::optim::Optimizer& optimizer) {
  return std::all_of(optimizer.param_groups().begin(), optimizer.param_groups().end(),
                     [](const auto& group) {
                       return std::all_of(group.params().begin(), group.params().end(), fits);
                     });
}

template <class Options>
bool any_amsgrad(const torch::optim::Optimizer& optimizer) {
  return std::any_of(
      optimizer.param_groups().begin(), optimizer.param_groups().end(),
      [](const auto& group) { return static_cast<const Options&>(group.options()).amsgrad(); });
}

// The lists a kernel takes: of one device and element type, and at the same step.
struct Lists {
  Tensors parameters, gradients, first, second, steps;
};
using Key = std::tuple<int64_t, int, int, int>;  // own step, device type, device, element type

Key key_of(const at::Tensor& parameter, int64_t step) {
  return {step, static_cast<int>(parameter.device().type()), parameter.device().index(),
          static_cast<int>(parameter.scalar_type())};
}

template <class Options, class ParamState, class Kernel>
void adam_step(torch::optim::Optimizer& optimizer, Kernel&& kernel) {
  for (auto& group : optimizer.param_groups()) {
    const auto& options = static_cast<const Options&>(group.options());
    std::map<Key, Lists> batches;
    for (const at::Tensor& parameter : group.params()) {
      if (!parameter.grad().defined()) continue;
      auto& entry = optimizer.state()[parameter.unsafeGetTensorImpl()];
      if (!entry) {
        auto fresh = std::make_unique<ParamState>();
        fresh->step(0);
        fresh->exp_avg(at::zeros_like(parameter, at::MemoryFormat::Preserve));
        fresh->exp_avg_sq(at::zeros_like(parameter, at::MemoryFormat::Preserve));
        entry = std::move(fresh);
      }
      auto& state = static_cast<ParamState&>(*entry);
      state.step(state.step() + 1);
      Lists& lists = batches[key_of(parameter, state.step())];
      lists.parameters.push_back(parameter);
      lists.gradients.push_back(parameter.grad());
      lists.first.push_back(state.exp_avg());
      lists.second.push_back(state.exp_avg_sq());
    }
    for (auto& [key, lists] : batches) {
      // Only read by the kernel, so one serves all. float32 counts to 2^24 exactly.
      const auto step =
          at::scalar_tensor(static_cast<double>(std::get<0>(key)),
                            lists.parameters[0].options().dtype(at::kFloat).requires_grad(false));
      lists.steps.assign(lists.parameters.size(), step);
      kernel(options, lists);
    }
  }
}

}  // namespace

at::Tensor FusedAdam::step(LossClosure closure) {
  if (closure || any_amsgrad<torch::optim::AdamOptions>(*this) || !all_fit(*this))
    return torch::optim::Adam::step(std::move(closure));
  const at::NoGradGuard no_grad;
  adam_step<torch::optim::AdamOptions, torch::optim::AdamParamState>(
      *this, [](const torch::optim::AdamOptions& o, Lists& l) {
        at::_fused_adam_(l.parameters, l.gradients, l.first, l.second, {}, l.steps, o.lr(),
                         std::get<0>(o.betas()), std::get<1>(o.betas()), o.weight_decay(), o.eps(),
                         /*amsgrad=*/false, /*maximize=*/false);
      });
  return {};
}

at::Tensor FusedAdamW::step(LossClosure closure) {
  if (closure || any_amsgrad<torch::optim::AdamWOptions>(*this) || !all_fit(*this))
    return torch::optim::AdamW::step(std::move(closure));
  const at::NoGradGuard no_grad;
  adam_step<torch::optim::AdamWOptions, torch::optim::AdamWParamState>(
      *this, [](const torch::optim::AdamWOptions& o, Lists& l) {
        at::_fused_adamw_(l.parameters, l.gradients, l.first, l.second, {}, l.steps, o.lr(),
                          std::get<0>(o.betas()), std::get<1>(o.betas()), o.weight_decay(), o.eps(),
                          /*amsgrad=*/false, /*maximize=*/false);
      });
  return {};
}

at::Tensor FusedSgd::step(LossClosure closure) {
  if (closure || !all_fit(*this)) return torch::optim::SGD::step(std::move(closure));
  const at::NoGradGuard no_grad;
  for (auto& group : param_groups()) {
    const auto& options = static_cast<const torch::optim::SGDOptions&>(group.options());
    std::map<Key, Lists> batches;  // 0: the first step
    for (const at::Tensor& parameter : group.params()) {
      if (!parameter.grad().defined()) continue;
      bool first = false;
      at::Tensor momentum;
      if (options.momentum() != 0) {
        auto& entry = state()[parameter.unsafeGetTensorImpl()];
        first = !entry;
        if (first) {
          auto fresh = std::make_unique<torch::optim::SGDParamState>();
          fresh->momentum_buffer(at::empty_like(parameter, at::MemoryFormat::Preserve));
          entry = std::move(fresh);
        }
        momentum = static_cast<torch::optim::SGDParamState&>(*entry).momentum_buffer();
      }
      Lists& lists = batches[key_of(parameter, first ? 0 : 1)];
      lists.parameters.push_back(parameter);
      lists.gradients.push_back(parameter.grad());
      if (momentum.defined()) lists.first.push_back(momentum);
    }
    for (auto& [key, l] : batches)
      at::_fused_sgd_(l.parameters, l.gradients, l.first, options.weight_decay(),
                      options.momentum(), options.lr(), options.dampening(), options.nesterov(),
                      /*maximize=*/false, /*is_first_step=*/std::get<0>(key) == 0);
  }
  return {};
}

}  // namespace mlo::detail
