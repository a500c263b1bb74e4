#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

namespace mlomae {

/// What a head reads of an encoder's tokens.
enum class Reads { class_token, mean };

/// How a head normalizes it: each image's features by LayerNorm, or each feature by its mean and
/// deviation over the batch (ε 1e-6, no parameters), as linear probes of masked autoencoders do.
enum class HeadNorm { layer, batch };

struct HeadOptions {
  int64_t dim = 96;
  int64_t classes = 10;
  double dropout = 0.1;
  HeadNorm norm = HeadNorm::layer;
  Reads reads = Reads::class_token;
};

/// C: normalization, dropout, Linear. Features [B, dim] → logits [B, classes].
class HeadImpl : public torch::nn::Module {
 public:
  explicit HeadImpl(const HeadOptions& options);
  at::Tensor forward(const at::Tensor& features);

  const HeadOptions& options() const { return options_; }

 private:
  const HeadOptions options_;
  torch::nn::LayerNorm norm_ = nullptr;
  torch::nn::Dropout dropout_ = nullptr;
  torch::nn::Linear linear_ = nullptr;
};
TORCH_MODULE(Head);

}  // namespace mlomae
