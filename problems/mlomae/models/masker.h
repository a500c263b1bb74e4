#pragma once

#include "mlomae/models/options.h"

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

namespace mlomae {

struct MaskerOptions {
  int64_t patches = 64;  ///< N
  int64_t dim = 96;      ///< of a patch's embedding
  int64_t hidden = 512;
  /// the output layer starts at zero: every patch is as likely as any other
  bool zero_output = false;
};

/// The network that proposes masks, T in the paper: Linear(N·dim → hidden), ReLU, Linear(hidden →
/// N) on embedded patches. Parameters: first_hidden_layer.fc.*, output_layer.*.
class MaskerImpl : public torch::nn::Module {
 public:
  explicit MaskerImpl(const MaskerOptions& options);
  /// [B, N, dim] → logits [B, N]; their sigmoid is the probability that a patch is masked.
  at::Tensor forward(const at::Tensor& embedded);

 private:
  torch::nn::Linear hidden_ = nullptr, output_ = nullptr;
};
TORCH_MODULE(Masker);

}  // namespace mlomae
