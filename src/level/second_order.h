#pragma once

#include "mlo/tensors.h"

#include <string>

namespace mlo {

/// For its lifetime attention runs through kernels that can be differentiated twice.
class SecondOrderGuard {
 public:
  explicit SecondOrderGuard(bool on);
  ~SecondOrderGuard();
  SecondOrderGuard(const SecondOrderGuard&) = delete;
  SecondOrderGuard& operator=(const SecondOrderGuard&) = delete;

 private:
  bool on_, flash_, efficient_, cudnn_;
};

/// The node of fused attention in the graph of `loss`, if the graphs of its gradients `gradients`
/// hold a derivative that LibTorch does not have; else empty.
std::string fused_attention_between(const at::Tensor& loss, const Tensors& gradients);
/// The node in the graph of `loss`, on a way to one of `parameters`, whose second derivative
/// LibTorch has wrong; else empty.
std::string wrong_when_differentiated_twice(const at::Tensor& loss, const Tensors& parameters);

}  // namespace mlo
