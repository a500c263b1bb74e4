#include "mlomae/models/block.h"

#include <ATen/ATen.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

namespace mlomae {
namespace {

at::Tensor dropped(const at::Tensor& x, double dropout, bool training) {
  return dropout > 0.0 && training ? at::dropout(x, dropout, /*train=*/true) : x;
}

at::Tensor wide(const at::Tensor& x) { return x.element_size() < 4 ? x.to(at::kFloat) : x; }

}  // namespace

torch::nn::LayerNorm layer_norm(int64_t dim) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim}).eps(1e-6));
}

AttentionImpl::AttentionImpl(const BlockOptions& options)
    : heads_(options.heads),
      dropout_(options.dropout),
      qkv_(register_module("qkv", torch::nn::Linear(options.dim, 3 * options.dim))),
      proj_(register_module("proj", torch::nn::Linear(options.dim, options.dim))) {}

at::Tensor AttentionImpl::forward(const at::Tensor& x, int64_t queries) {
  const int64_t batch = x.size(0), length = x.size(1), dim = x.size(2);
  const auto by_head = [&](const at::Tensor& y, int64_t tokens) {
    return wide(y).view({batch, tokens, heads_, dim / heads_}).transpose(1, 2);
  };
  at::Tensor q, k, v;
  if (queries == length) {
    const auto parts = qkv_->forward(x).chunk(3, -1);
    q = parts[0], k = parts[1], v = parts[2];
  } else {
    q = at::linear(x.narrow(1, 0, queries), qkv_->weight.narrow(0, 0, dim),
                   qkv_->bias.narrow(0, 0, dim));
    const auto parts =
        at::linear(x, qkv_->weight.narrow(0, dim, 2 * dim), qkv_->bias.narrow(0, dim, 2 * dim))
            .chunk(2, -1);
    k = parts[0], v = parts[1];
  }
  at::Tensor mixed;
  {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    mixed = at::scaled_dot_product_attention(by_head(q, queries), by_head(k, length),
                                             by_head(v, length));
  }
  return dropped(proj_->forward(mixed.transpose(1, 2).reshape({batch, queries, dim})), dropout_,
                 is_training());
}

MlpImpl::MlpImpl(const BlockOptions& options)
    : dropout_(options.dropout),
      fc1_(register_module(
          "fc1", torch::nn::Linear(
                     options.dim,
                     static_cast<int64_t>(static_cast<double>(options.dim) * options.mlp_ratio)))),
      fc2_(register_module("fc2", torch::nn::Linear(fc1_->options.out_features(), options.dim))) {}

at::Tensor MlpImpl::forward(const at::Tensor& x) {
  const at::Tensor hidden = dropped(at::gelu(fc1_->forward(x)), dropout_, is_training());
  return dropped(fc2_->forward(hidden), dropout_, is_training());
}

BlockImpl::BlockImpl(const BlockOptions& options)
    : norm1_(register_module("norm1", layer_norm(options.dim))),
      norm2_(register_module("norm2", layer_norm(options.dim))),
      attn_(register_module("attn", Attention(options))),
      mlp_(register_module("mlp", Mlp(options))) {}

at::Tensor BlockImpl::forward(const at::Tensor& x) { return forward_queries(x, x.size(1)); }

at::Tensor BlockImpl::forward_first(const at::Tensor& x) { return forward_queries(x, 1); }

at::Tensor BlockImpl::forward_queries(const at::Tensor& x, int64_t queries) {
  const at::Tensor rest = queries == x.size(1) ? x : x.narrow(1, 0, queries);
  const at::Tensor y = rest + attn_->forward(norm1_->forward(x), queries);
  return y + mlp_->forward(norm2_->forward(y));
}

}  // namespace mlomae
