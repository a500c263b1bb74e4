#include "mlomae/models/masked_autoencoder.h"

#include "mlomae/message.h"
#include "mlomae/models/block.h"
#include "mlomae/models/positions.h"

#include <ATen/ATen.h>
#include <mlo/checkpointed.h>
#include <torch/nn/init.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

namespace mlomae {
namespace {

constexpr double kVarianceFloor = 1e-6;  // of a patch's pixels, as in MAE

// A patch's mean and deviation, [B, N, 1].
std::pair<at::Tensor, at::Tensor> statistics(const at::Tensor& patches) {
  const auto [variance, mean] =
      at::var_mean(patches, at::OptionalIntArrayRef({-1}), /*correction=*/1, /*keepdim=*/true);
  return {mean, (variance + kVarianceFloor).sqrt()};
}

at::Tensor at_patches(const at::Tensor& patches, const at::Tensor& index) {
  return patches.gather(1, index.unsqueeze(-1).expand({-1, -1, patches.size(2)}));
}

// "proj", named and shaped like the convolution it is in the official code.
struct PatchEmbedImpl : torch::nn::Module {
  PatchEmbedImpl(int64_t patch, int64_t channels, int64_t dim)
      : proj(register_module(
            "proj",
            torch::nn::Conv2d(torch::nn::Conv2dOptions(channels, dim, patch).stride(patch)))) {}
  torch::nn::Conv2d proj;
};
TORCH_MODULE(PatchEmbed);

}  // namespace

Mask Mask::from_order(const at::Tensor& order, int64_t visible) {
  const at::Tensor restore = order.argsort(int64_t{1}, /*descending=*/false);
  return {order.narrow(1, 0, visible), restore, restore.ge(visible).to(at::kFloat)};
}

MaskedAutoencoderImpl::MaskedAutoencoderImpl(const ModelOptions& options) : options_(options) {
  options_.validate();
  const int64_t dim = options.dim, decoder_dim = options.decoder_dim,
                tokens = 1 + options.patches();
  cls_token_ = register_parameter("cls_token", torch::zeros({1, 1, dim}));
  pos_embed_ = register_parameter("pos_embed", sine_cosine_positions(dim, options.side()),
                                  options.learned_positions);
  const PatchEmbed patch_embed(options.patch, options.channels, dim);
  register_module("patch_embed", patch_embed);
  weight_ = patch_embed->proj->weight, bias_ = patch_embed->proj->bias;
  blocks_ = register_module("blocks", torch::nn::ModuleList());
  for (int64_t i = 0; i < options.depth; ++i)
    blocks_->push_back(Block(BlockOptions{dim, options.heads, options.mlp_ratio, options.dropout}));
  norm_ = register_module("norm", layer_norm(dim));

  decoder_embed_ = register_module("decoder_embed", torch::nn::Linear(dim, decoder_dim));
  mask_token_ = register_parameter("mask_token", torch::zeros({1, 1, decoder_dim}));
  decoder_pos_embed_ =
      register_parameter("decoder_pos_embed", sine_cosine_positions(decoder_dim, options.side()),
                         options.learned_positions);
  decoder_blocks_ = register_module("decoder_blocks", torch::nn::ModuleList());
  for (int64_t i = 0; i < options.decoder_depth; ++i)
    decoder_blocks_->push_back(Block(
        BlockOptions{decoder_dim, options.decoder_heads, options.mlp_ratio, options.dropout}));
  decoder_norm_ = register_module("decoder_norm", layer_norm(decoder_dim));
  decoder_pred_ =
      register_module("decoder_pred", torch::nn::Linear(decoder_dim, options.patch_values()));
  TORCH_INTERNAL_ASSERT(pos_embed_.size(1) == tokens);

  // MAE's initialization: Xavier for every product (the patch embedding taken as one), zero biases,
  // small tokens.
  const at::NoGradGuard no_grad;
  torch::nn::init::xavier_uniform_(weight_.view({dim, -1}));
  torch::nn::init::normal_(cls_token_, 0.0, 0.02);
  torch::nn::init::normal_(mask_token_, 0.0, 0.02);
  for (const auto& module : modules(/*include_self=*/false))
    if (auto* linear = module->as<torch::nn::Linear>()) {
      torch::nn::init::xavier_uniform_(linear->weight);
      torch::nn::init::zeros_(linear->bias);
    }
}

at::Tensor MaskedAutoencoderImpl::embed(const at::Tensor& images) {
  if (images.dim() != 4 || images.size(1) != options_.channels ||
      images.size(2) != options_.image_size || images.size(3) != options_.image_size)
    refuse(
        "images of shape {} for a model of {} × {} × {} pixels; set model.image_size and "
        "data.channels to match",
        shape_text(images.sizes().vec()), options_.channels, options_.image_size,
        options_.image_size);
  const int64_t p = options_.patch, side = options_.side();
  const at::Tensor patches = images.view({images.size(0), options_.channels, side, p, side, p})
                                 .permute({0, 2, 4, 1, 3, 5})
                                 .reshape({images.size(0), side * side, options_.channels * p * p});
  return at::linear(patches, weight_.view({options_.dim, -1}), bias_) +
         pos_embed_.narrow(1, 1, options_.patches());
}

at::Tensor MaskedAutoencoderImpl::with_class_token(const at::Tensor& embedded) const {
  const at::Tensor token = cls_token_ + pos_embed_.narrow(1, 0, 1);
  return at::cat({token.expand({embedded.size(0), 1, options_.dim}), embedded}, 1);
}

at::Tensor MaskedAutoencoderImpl::through(const torch::nn::ModuleListImpl& blocks, std::size_t i,
                                          const at::Tensor& x) const {
  const auto block = blocks.ptr<BlockImpl>(i);
  if (!options_.checkpoint_activations) return block->forward(x);
  return mlo::checkpointed([block](const at::Tensor& input) { return block->forward(input); }, x,
                           block->parameters());
}

at::Tensor MaskedAutoencoderImpl::features(const at::Tensor& images) {
  at::Tensor x = with_class_token(embed(images));
  const std::size_t last = blocks_->size() - 1;
  for (std::size_t i = 0; i < last; ++i) x = through(*blocks_, i, x);
  return norm_->forward(blocks_->at<BlockImpl>(last).forward_first(x)).squeeze(1);
}

at::Tensor MaskedAutoencoderImpl::tokens(const at::Tensor& images) {
  at::Tensor x = with_class_token(embed(images));
  for (std::size_t i = 0; i < blocks_->size(); ++i) x = through(*blocks_, i, x);
  return norm_->forward(x);
}

at::Tensor MaskedAutoencoderImpl::encode(const at::Tensor& embedded, const Mask& mask) {
  at::Tensor x = with_class_token(at_patches(embedded, mask.visible));
  for (std::size_t i = 0; i < blocks_->size(); ++i) x = through(*blocks_, i, x);
  return norm_->forward(x);
}

at::Tensor MaskedAutoencoderImpl::decode(const at::Tensor& latent, const Mask& mask) {
  const at::Tensor embedded = decoder_embed_->forward(latent);
  const int64_t batch = latent.size(0), hidden = mask.restore.size(1) + 1 - latent.size(1);
  // Under autocast products come in another type than the token.
  const at::Tensor token =
      mask_token_.to(embedded.scalar_type()).expand({batch, hidden, options_.decoder_dim});
  const at::Tensor patches = at::cat({embedded.narrow(1, 1, embedded.size(1) - 1), token}, 1);
  at::Tensor x = at::cat({embedded.narrow(1, 0, 1), at_patches(patches, mask.restore)}, 1) +
                 decoder_pos_embed_;
  for (std::size_t i = 0; i < decoder_blocks_->size(); ++i) x = through(*decoder_blocks_, i, x);
  x = decoder_norm_->forward(x).narrow(1, 1, mask.restore.size(1));
  return decoder_pred_->forward(x);
}

at::Tensor MaskedAutoencoderImpl::reconstruct(const at::Tensor& images, const Mask& mask) {
  return decode(encode(embed(images), mask), mask);
}

at::Tensor MaskedAutoencoderImpl::targets(const at::Tensor& images) const {
  const at::Tensor patches = patchify(images);
  if (!options_.normalize_targets) return patches;
  const auto [mean, deviation] = statistics(patches);
  return (patches - mean) / deviation;
}

at::Tensor MaskedAutoencoderImpl::pixels(const at::Tensor& predictions,
                                         const at::Tensor& images) const {
  if (!options_.normalize_targets) return unpatchify(predictions);
  const auto [mean, deviation] = statistics(patchify(images));
  return unpatchify(predictions * deviation + mean);
}

at::Tensor MaskedAutoencoderImpl::patchify(const at::Tensor& images) const {
  const int64_t p = options_.patch, side = options_.side();
  return images.view({images.size(0), options_.channels, side, p, side, p})
      .permute({0, 2, 4, 3, 5, 1})
      .reshape({images.size(0), side * side, options_.patch_values()});
}

at::Tensor MaskedAutoencoderImpl::unpatchify(const at::Tensor& patches) const {
  const int64_t p = options_.patch, side = options_.side();
  return patches.reshape({patches.size(0), side, side, p, p, options_.channels})
      .permute({0, 5, 1, 3, 2, 4})
      .reshape({patches.size(0), options_.channels, options_.image_size, options_.image_size});
}

}  // namespace mlomae
