#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

namespace mlomae {

struct BlockOptions {
  int64_t dim = 96;
  int64_t heads = 3;
  double mlp_ratio = 4.0;
  double dropout = 0.0;
};

/// With the ε of all these models, 1e-6.
torch::nn::LayerNorm layer_norm(int64_t dim);

/// Multi-head self-attention. Under autocast its products are in bfloat16, but the attention itself
/// stays in float32: on CPUs the backward pass of fused attention is several times slower in
/// bfloat16.
class AttentionImpl : public torch::nn::Module {
 public:
  explicit AttentionImpl(const BlockOptions& options);
  /// Queries of the first `queries` tokens against all of x: [B, L, dim] → [B, queries, dim].
  at::Tensor forward(const at::Tensor& x, int64_t queries);

 private:
  const int64_t heads_;
  const double dropout_;
  torch::nn::Linear qkv_ = nullptr, proj_ = nullptr;
};
TORCH_MODULE(Attention);

/// Linear, GELU, Linear.
class MlpImpl : public torch::nn::Module {
 public:
  explicit MlpImpl(const BlockOptions& options);
  at::Tensor forward(const at::Tensor& x);

 private:
  const double dropout_;
  torch::nn::Linear fc1_ = nullptr, fc2_ = nullptr;
};
TORCH_MODULE(Mlp);

/// A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)). Parameters are
/// named as in timm and MAE.
class BlockImpl : public torch::nn::Module {
 public:
  explicit BlockImpl(const BlockOptions& options);
  /// [B, L, dim] → [B, L, dim].
  at::Tensor forward(const at::Tensor& x);
  /// Its first token only, [B, 1, dim]: all that a reader of the class token needs of the last
  /// block.
  at::Tensor forward_first(const at::Tensor& x);

 private:
  at::Tensor forward_queries(const at::Tensor& x, int64_t queries);

  torch::nn::LayerNorm norm1_ = nullptr, norm2_ = nullptr;
  Attention attn_ = nullptr;
  Mlp mlp_ = nullptr;
};
TORCH_MODULE(Block);

}  // namespace mlomae
