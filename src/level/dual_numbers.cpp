#include "precompiled.h"

#include "level/dual_numbers.h"
#include "mlo/error.h"
#include "text.h"

#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/function.h>

#include <string_view>
#include <unordered_set>

namespace mlo {
namespace {

// Operations whose forward derivative is made of operations that autograd differentiates right, as
// the test of this table proves for each (tests/proof/reverse_over_forward_test.cpp). Without the
// version number that LibTorch puts behind the name.
constexpr std::string_view kKnown[] = {"AbsBackward",
                                       "AddBackward",
                                       "AddmmBackward",
                                       "AddmvBackward",
                                       "BmmBackward",
                                       "CatBackward",
                                       "ClampBackward",
                                       "ClampMinBackward",
                                       "CloneBackward",
                                       "CosBackward",
                                       "DivBackward",
                                       "DotBackward",
                                       "ExpandBackward",
                                       "ExpBackward",
                                       "GatherBackward",
                                       "IndexSelectBackward",
                                       "LogBackward",
                                       "MaskedFillBackward",
                                       "MeanBackward",
                                       "MmBackward",
                                       "MulBackward",
                                       "MvBackward",
                                       "NegBackward",
                                       "PermuteBackward",
                                       "PowBackward",
                                       "ReciprocalBackward",
                                       "ReluBackward",
                                       "ReshapeAliasBackward",
                                       "RsubBackward",
                                       "SelectBackward",
                                       "SigmoidBackward",
                                       "SigmoidBackwardBackward",
                                       "SinBackward",
                                       "SliceBackward",
                                       "SoftplusBackward",
                                       "SoftplusBackwardBackward",
                                       "SqrtBackward",
                                       "SqueezeBackward",
                                       "StackBackward",
                                       "SubBackward",
                                       "SumBackward",
                                       "TanhBackward",
                                       "TanhBackwardBackward",
                                       "TBackward",
                                       "ThresholdBackwardBackward",
                                       "ToCopyBackward",
                                       "TransposeBackward",
                                       "UnsafeViewBackward",
                                       "UnsqueezeBackward",
                                       "ViewBackward",
                                       "SignBackward",
                                       "SgnBackward",
                                       "WhereBackward",
                                       "torch::autograd::AccumulateGrad",
                                       "torch::autograd::GraphRoot",
                                       "torch::autograd::Identity"};

bool known(std::string_view name) {
  while (!name.empty() && name.back() >= '0' && name.back() <= '9') name.remove_suffix(1);
  for (const std::string_view k : kKnown)
    if (name == k) return true;
  return false;
}

}  // namespace

DualNumbersGuard::DualNumbersGuard(const Tensors& parameters, const Tensors& v) {
  level_ = torch::autograd::ForwardADLevel::get_next_idx();
  try {
    if (level_ != 0)
      refuse<UnsupportedError>(
          "forward mode is in use already, and LibTorch has one level of it; leave the dual "
          "numbers of your own before the engine steps");
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor tangent = v[i].scalar_type() == parameters[i].scalar_type()
                                     ? v[i]
                                     : v[i].to(parameters[i].scalar_type());
      parameters[i]._set_fw_grad(tangent.detach(), level_, /*is_inplace_op=*/false);
    }
  } catch (...) {
    torch::autograd::ForwardADLevel::release_idx(level_);
    throw;
  }
}

DualNumbersGuard::~DualNumbersGuard() { torch::autograd::ForwardADLevel::release_idx(level_); }

at::Tensor DualNumbersGuard::tangent(const at::Tensor& tensor) const {
  return tensor._fw_grad(level_);
}

std::string not_differentiable_after_forward(const at::Tensor& loss, const at::Tensor& tangent) {
  std::vector<torch::autograd::Node*> open = {loss.grad_fn().get(), tangent.grad_fn().get()};
  std::unordered_set<const torch::autograd::Node*> seen(open.begin(), open.end());
  while (!open.empty()) {
    torch::autograd::Node* node = open.back();
    open.pop_back();
    if (!node) continue;
    if (const std::string name = node->name(); !known(name)) return name;
    for (const auto& edge : node->next_edges())
      if (seen.insert(edge.function.get()).second) open.push_back(edge.function.get());
  }
  return {};
}

}  // namespace mlo
