#pragma once

#include "mlomae/models/options.h"

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

namespace mlomae {

/// Which patches the encoder sees. B images of N patches, V of them visible.
struct Mask {
  at::Tensor visible;  ///< int64 [B, V]: patch numbers, in the order the encoder is given them
  at::Tensor restore;  ///< int64 [B, N]: where patch i stands in the order "visible ones first"
  at::Tensor masked;   ///< float32 [B, N]: 1 where masked, 0 where visible

  /// `order`: int64 [B, N], a permutation a row, the V visible patches first.
  static Mask from_order(const at::Tensor& order, int64_t visible);
};

/// Encoder E and decoder D. Parameters carry the official MAE names (cls_token, pos_embed,
/// patch_embed.proj.*, blocks.i.*, norm.*; decoder_embed.*, mask_token, decoder_pos_embed,
/// decoder_blocks.i.*, decoder_norm.*, decoder_pred.*). Fixed positions are parameters without
/// requires_grad.
class MaskedAutoencoderImpl : public torch::nn::Module {
 public:
  explicit MaskedAutoencoderImpl(const ModelOptions& options);

  /// Patch embeddings plus positions: [B, C, S, S] → [B, N, dim]. What the masker reads.
  at::Tensor embed(const at::Tensor& images);
  /// Class token after the last norm, all patches visible: [B, C, S, S] → [B, dim]. The last block
  /// computes it for the class token only.
  at::Tensor features(const at::Tensor& images);
  /// All tokens after the last norm, class token first: → [B, 1 + N, dim].
  at::Tensor tokens(const at::Tensor& images);
  /// The encoder on the visible ones of embedded patches: [B, N, dim] → [B, 1 + V, dim].
  at::Tensor encode(const at::Tensor& embedded, const Mask& mask);
  /// [B, 1 + V, dim] → predictions [B, N, patch²·channels].
  at::Tensor decode(const at::Tensor& latent, const Mask& mask);
  /// decode(encode(embed(images), mask), mask).
  at::Tensor reconstruct(const at::Tensor& images, const Mask& mask);
  /// What is to be predicted: the pixels, normalized by patch if the options say so. [B, N,
  /// patch²·channels].
  at::Tensor targets(const at::Tensor& images) const;
  /// Pixels of predictions: undoes the normalization with the images' own patch means and
  /// deviations. [B, C, S, S].
  at::Tensor pixels(const at::Tensor& predictions, const at::Tensor& images) const;

  /// [B, C, S, S] ↔ [B, N, patch²·C], pixel by pixel, channels last in a patch (the official
  /// order).
  at::Tensor patchify(const at::Tensor& images) const;
  at::Tensor unpatchify(const at::Tensor& patches) const;

  const ModelOptions& options() const { return options_; }

 private:
  at::Tensor with_class_token(const at::Tensor& embedded) const;
  at::Tensor through(const torch::nn::ModuleListImpl& blocks, std::size_t i,
                     const at::Tensor& x) const;

  ModelOptions options_;
  torch::nn::ModuleList blocks_ = nullptr, decoder_blocks_ = nullptr;
  torch::nn::LayerNorm norm_ = nullptr, decoder_norm_ = nullptr;
  torch::nn::Linear decoder_embed_ = nullptr, decoder_pred_ = nullptr;
  at::Tensor cls_token_, pos_embed_, mask_token_, decoder_pos_embed_;
  at::Tensor weight_, bias_;  // of the patch embedding
};
TORCH_MODULE(MaskedAutoencoder);

}  // namespace mlomae
