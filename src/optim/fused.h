#pragma once

#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

/// LibTorch's optimizers with the same options and state, stepped by ATen's fused kernels: one pass
/// over memory instead of one an operation. What a kernel cannot take (a parameter that is not
/// contiguous, AMSGrad, gradients of another layout or type) goes the base class's way.
namespace mlo::detail {

class FusedSgd final : public torch::optim::SGD {
 public:
  using torch::optim::SGD::SGD;
  at::Tensor step(LossClosure closure = nullptr) override;
};

class FusedAdam final : public torch::optim::Adam {
 public:
  using torch::optim::Adam::Adam;
  at::Tensor step(LossClosure closure = nullptr) override;
};

class FusedAdamW final : public torch::optim::AdamW {
 public:
  using torch::optim::AdamW::AdamW;
  at::Tensor step(LossClosure closure = nullptr) override;
};

}  // namespace mlo::detail
