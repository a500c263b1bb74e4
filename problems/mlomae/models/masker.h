#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <functional>

namespace mlomae {

/// How the masking network maps what it reads of N patches, u [B, N, dim], to scores.
enum class Network {
  /// Linear(N·dim → hidden), ReLU, Linear(hidden → N) on all patches at once (the paper)
  image,
  /// shared by all patches: a = ReLU(Conv3×3(dim → hidden)(u)), b the mean of a over the image,
  /// Linear(hidden → 1)(ReLU(Linear(2·hidden → hidden)([a, b])))
  convolution,
  /// shared by all patches: Linear(dim → hidden), sines and cosines of the position, two
  /// transformer blocks, LayerNorm, Linear(hidden → 1)
  attention,
  /// a number a position, whatever the image: what is left where content does not matter
  positions
};

struct MaskerOptions {
  Network network = Network::image;
  int64_t patches = 64;  ///< N, a square number
  int64_t dim = 96;      ///< of what is read of a patch
  int64_t hidden = 512;  ///< attention: a multiple of 4
  /// 2: also a score by which patches are hidden, beside the one by which they count
  int64_t scores = 1;
  /// the output layer starts at zero: every patch is as likely as any other
  bool zero_output = false;
};

/// The network that proposes masks and weights, T in the paper. The last layer is called
/// output_layer (positions: table); that of `image` reads first_hidden_layer.fc, as in the authors'
/// code.
class MaskerImpl : public torch::nn::Module {
 public:
  /// Throws mlo::ConfigError for a width that the network cannot have.
  explicit MaskerImpl(const MaskerOptions& options);
  /// [B, N, dim] → logits [B, N, scores]. The sigmoid of the first score is the probability that a
  /// patch is masked, or what it counts.
  at::Tensor forward(const at::Tensor& read) { return map_(read); }

 private:
  std::function<at::Tensor(const at::Tensor&)> map_;
};
TORCH_MODULE(Masker);

}  // namespace mlomae
