#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

namespace mlomae {

struct HeadOptions {
  int64_t dim = 96;
  int64_t classes = 10;
  double dropout = 0.1;
};

/// C: LayerNorm, dropout, Linear. Features [B, dim] → logits [B, classes].
class HeadImpl : public torch::nn::Module {
 public:
  explicit HeadImpl(const HeadOptions& options);
  at::Tensor forward(const at::Tensor& features);

 private:
  torch::nn::LayerNorm norm_ = nullptr;
  torch::nn::Dropout dropout_ = nullptr;
  torch::nn::Linear linear_ = nullptr;
};
TORCH_MODULE(Head);

}  // namespace mlomae
