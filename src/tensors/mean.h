#pragma once

#include "mlo/tensors.h"

#include <ATen/core/grad_mode.h>

#include <cstddef>
#include <utility>

namespace mlo {

/// The mean over micro-batches, entry by entry; an undefined entry counts as zero. A single part is
/// passed on as it is. Parts are never written: what autograd returned may share memory with other
/// gradients.
class Mean {
 public:
  Mean(std::size_t entries, std::size_t parts) : mean_(entries), parts_(parts) {}

  void add(Tensors part) {
    if (parts_ == 1) {
      mean_ = std::move(part);
      return;
    }
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < mean_.size(); ++i) {
      if (!part[i].defined()) continue;
      at::Tensor share = part[i] / static_cast<double>(parts_);
      part[i].reset();
      if (mean_[i].defined()) {
        mean_[i].add_(share);
      } else {
        mean_[i] = std::move(share);
      }
    }
  }

  Tensors take() { return std::move(mean_); }

 private:
  Tensors mean_;
  const std::size_t parts_;
};

}  // namespace mlo
