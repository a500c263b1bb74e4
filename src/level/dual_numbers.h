#pragma once

#include "mlo/tensors.h"

#include <cstdint>
#include <string>

namespace mlo {

/// For its lifetime the parameters are dual numbers θ + εv: what is computed from them has a
/// tangent, its derivative along v. One at a time in a process (LibTorch has one forward level); a
/// second throws UnsupportedError. Whatever was dual is plain again afterwards, also while an
/// exception passes.
class DualNumbersGuard {
 public:
  DualNumbersGuard(const Tensors& parameters, const Tensors& v);
  ~DualNumbersGuard();
  DualNumbersGuard(const DualNumbersGuard&) = delete;
  DualNumbersGuard& operator=(const DualNumbersGuard&) = delete;

  /// Undefined: it does not depend on the parameters.
  at::Tensor tangent(const at::Tensor& tensor) const;

 private:
  uint64_t level_;
};

/// The first operation in the graphs of a loss or of its tangent whose forward derivative LibTorch
/// does not differentiate right (for layer norm, softmax and the like the statistics count as
/// constants), by its node's name; empty if there is none.
std::string not_differentiable_after_forward(const at::Tensor& loss, const at::Tensor& tangent);

}  // namespace mlo
