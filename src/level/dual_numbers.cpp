#include "precompiled.h"

#include "level/dual_numbers.h"
#include "mlo/error.h"
#include "text.h"

#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

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

using torch::autograd::Node;

// All that is reached from these, themselves included.
std::vector<Node*> nodes_of(std::vector<Node*> open) {
  std::vector<Node*> found;
  std::unordered_set<const Node*> seen(open.begin(), open.end());
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    if (!node) continue;
    found.push_back(node);
    for (const auto& edge : node->next_edges())
      if (seen.insert(edge.function.get()).second) open.push_back(edge.function.get());
  }
  return found;
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

std::map<std::string, int64_t> unsure_after_forward(const at::Tensor& loss,
                                                    const at::Tensor& tangent) {
  std::map<std::string, int64_t> count;
  for (const Node* node : nodes_of({loss.grad_fn().get(), tangent.grad_fn().get()}))
    if (const std::string name = node->name(); !known(name)) ++count[name];
  return count;
}

std::string unsure_between(const at::Tensor& loss, const Tensors& dual, const Tensors& wrt) {
  const std::vector<Node*> nodes = nodes_of({loss.grad_fn().get()});
  std::unordered_map<const Node*, std::vector<const Node*>> above;
  for (const Node* node : nodes)
    for (const auto& edge : node->next_edges()) above[edge.function.get()].push_back(node);
  const auto all_above = [&](const Tensors& leaves) {
    std::unordered_set<const void*> wanted;
    for (const at::Tensor& leaf : leaves) wanted.insert(leaf.unsafeGetTensorImpl());
    std::vector<const Node*> open;
    for (Node* node : nodes)
      if (const auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(node))
        if (wanted.contains(leaf->variable.unsafeGetTensorImpl())) open.push_back(node);
    std::unordered_set<const Node*> found(open.begin(), open.end());
    while (!open.empty()) {
      const Node* node = open.back();
      open.pop_back();
      for (const Node* next : above[node])
        if (found.insert(next).second) open.push_back(next);
    }
    return found;
  };
  const auto of_dual = all_above(dual), of_wrt = all_above(wrt);
  for (const Node* node : nodes)
    if (of_dual.contains(node) && of_wrt.contains(node) && !known(node->name()))
      return node->name();
  return {};
}

}  // namespace mlo
