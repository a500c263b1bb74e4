#pragma once

#include "mlomae/models/head.h"
#include "mlomae/models/masked_autoencoder.h"
#include "mlomae/models/masker.h"

#include <filesystem>
#include <functional>
#include <string>

namespace mlomae {

/// Encoder and decoder as safetensors under the official MAE names; the model's shape is in the
/// metadata.
void export_model(const std::filesystem::path& file, MaskedAutoencoder mae);
/// The encoder alone, as timm's VisionTransformer names it (but for its head): cls_token,
/// pos_embed, patch_embed.proj.*, blocks.*, norm.*.
void export_encoder(const std::filesystem::path& file, MaskedAutoencoder mae);

/// What the tensors of a foreign file do not say.
struct Unsaid {
  int64_t heads = 0, decoder_heads = 0;  ///< 0: those that the published models of this width have
  /// Hears what was assumed of a file without our metadata, a sentence each.
  std::function<void(const std::string&)> assumed = {};
};
/// The shape of the model in a file of the official names, in our metadata or by its tensors.
/// Throws mlo::Error naming the file for one that holds no such model, whose metadata and tensors
/// disagree, or whose heads nobody says: widths that no published model has need `model.heads`.
ModelOptions model_options_of(const std::filesystem::path& file, const Unsaid& unsaid = {});
/// Loads weights of the official names. Position embeddings of another grid are interpolated
/// (bicubic); a file without a decoder leaves the decoder as it is; classifier heads are not looked
/// at, and "module." before every name (DistributedDataParallel's) is left out. Throws mlo::Error
/// that lists what is missing, unknown or of another shape, or names the first tensor that holds
/// values that are not finite, with the model as before.
void import_weights(const std::filesystem::path& file, MaskedAutoencoder mae);

/// Any module's parameters under their own names, and back; throws as `import_weights`.
void export_module(const std::filesystem::path& file, const torch::nn::Module& module);
void import_module(const std::filesystem::path& file, torch::nn::Module& module);

}  // namespace mlomae
