#pragma once

#include "mlomae/models/head.h"
#include "mlomae/models/masked_autoencoder.h"
#include "mlomae/models/masking_network.h"

#include <filesystem>

namespace mlomae {

/// Encoder and decoder as safetensors under the official MAE names; the model's shape is in the metadata.
void export_model(const std::filesystem::path& file, MaskedAutoencoder mae);
/// The encoder alone, as timm's VisionTransformer names it (but for its head): cls_token, pos_embed, patch_embed.proj.*,
/// blocks.*, norm.*.
void export_encoder(const std::filesystem::path& file, MaskedAutoencoder mae);

/// The shape of the model in a file of the official names. Heads are not in the tensors: without our metadata they are taken as
/// the official models have them, dim/64 and 16 in the decoder. Without a decoder in the file its fields are those of `rest`.
ModelOptions model_options_of(const std::filesystem::path& file, ModelOptions rest = {});
/// Loads weights of the official names. Position embeddings of another grid are interpolated (bicubic); a file without a decoder
/// leaves the decoder as it is; classifier heads are not looked at. Throws mlo::Error that lists what is missing, unknown or of
/// another shape, with the model as before.
void import_weights(const std::filesystem::path& file, MaskedAutoencoder mae);

/// Any module's parameters under their own names, and back.
void export_module(const std::filesystem::path& file, const torch::nn::Module& module);
void import_module(const std::filesystem::path& file, torch::nn::Module& module);

}  // namespace mlomae
