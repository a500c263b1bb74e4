#pragma once

#include "mlo/tensors.h"

#include <cstdint>
#include <map>
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

/// Operations whose forward derivative LibTorch does not differentiate right, as far as is known
/// (for layer norm, softmax and the like the statistics count as constants): how many nodes of each
/// name there are in the graphs of a loss and of its tangent.
std::map<std::string, int64_t> unsure_after_forward(const at::Tensor& loss,
                                                    const at::Tensor& tangent);

/// Such operations do no harm where no tangent goes through them. The name of one that stands, in
/// the graph of a loss, above parameters that are to be dual and above one of `wrt`; empty if none
/// does.
std::string unsure_between(const at::Tensor& loss, const Tensors& dual, const Tensors& wrt);

}  // namespace mlo
