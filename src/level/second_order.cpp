#include "precompiled.h"

#include "level/second_order.h"

#include <ATen/Context.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <unordered_set>

namespace mlo {
namespace {

using torch::autograd::Node;

// The first node of the graphs behind `open` that is looked for; null if there is none.
template <class IsIt>
Node* find_node(std::vector<Node*> open, IsIt&& is_it) {
  std::unordered_set<const Node*> seen(open.begin(), open.end());
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    if (!node) continue;
    if (is_it(*node)) return node;
    for (const auto& edge : node->next_edges())
      if (seen.insert(edge.function.get()).second) open.push_back(edge.function.get());
  }
  return nullptr;
}

std::string find_name(const Tensors& tensors, const char* part) {
  std::vector<Node*> roots;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined()) roots.push_back(tensor.grad_fn().get());
  const Node* node = find_node(
      roots, [&](const Node& each) { return each.name().find(part) != std::string::npos; });
  return node ? node->name() : std::string();
}

}  // namespace

SecondOrderGuard::SecondOrderGuard(bool on)
    : on_(on),
      flash_(at::globalContext().userEnabledFlashSDP()),
      efficient_(at::globalContext().userEnabledMemEfficientSDP()),
      cudnn_(at::globalContext().userEnabledCuDNNSDP()) {
  if (!on_) return;
  at::globalContext().setSDPUseFlash(false);
  at::globalContext().setSDPUseMemEfficient(false);
  at::globalContext().setSDPUseCuDNN(false);
}

SecondOrderGuard::~SecondOrderGuard() {
  if (!on_) return;
  at::globalContext().setSDPUseFlash(flash_);
  at::globalContext().setSDPUseMemEfficient(efficient_);
  at::globalContext().setSDPUseCuDNN(cudnn_);
}

std::string fused_attention_between(const at::Tensor& loss, const Tensors& gradients) {
  return find_name(gradients, "NotImplemented").empty() ? std::string()
                                                        : find_name({loss}, "ScaledDotProduct");
}

std::string wrong_when_differentiated_twice(const at::Tensor& loss, const Tensors& parameters) {
  std::unordered_set<const void*> own;
  for (const at::Tensor& parameter : parameters) own.insert(parameter.unsafeGetTensorImpl());
  const auto is_own = [&](Node& node) {
    const auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(&node);
    return leaf && own.count(leaf->variable.unsafeGetTensorImpl()) != 0;
  };
  // The differentiable form of its backward takes the norms of the forward pass as constants.
  const auto is_wrong = [&](Node& node) {
    return node.name().find("WeightNormInterface") != std::string::npos &&
           find_node({&node}, is_own);
  };
  const Node* node = find_node({loss.grad_fn().get()}, is_wrong);
  return node ? node->name() : std::string();
}

}  // namespace mlo
