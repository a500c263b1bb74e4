#pragma once

#include "mlomae/models/masked_autoencoder.h"
#include "mlomae/models/masker.h"

namespace mlomae {

/// Which patches are masked. "Drawn": without replacement, the highest logits plus Gumbel noise;
/// equal logits give MAE's masks.
enum class Selects {
  uniform,  ///< any of them alike (MAE)
  rank,     ///< those of highest probability (the paper)
  sampled,  ///< drawn by the masker's logits
  own  ///< drawn by a second score of the masker, which is trained by what hiding a patch does:
       ///< its weight is multiplied by 1 with the derivative of that score's probability
};

/// The weight w_i of a masked patch's error in the loss; z the masker's logits, p_i = σ(z_i), M the
/// number of masked patches of the image, over which the sums run. It is what the masker's gradient
/// comes through.
enum class Weighs {
  alike,             ///< 1
  probability,       ///< p_i (the paper's Eq. 1)
  normalized,        ///< M · p_i / Σ p, so that errors cannot be lowered by lowering all p
  straight_through,  ///< 1, with the derivative of p_i (the paper's A.4)
  softmax,  ///< f + (1 − f) · M · exp(z_i / τ) / Σ exp(z / τ); 0 for visible patches
  bounded  ///< M · b_i / Σ b, where b_i = f + (1 − f) · σ(z_i − mean of z over the image's N
           ///< patches): no patch counts less than f of what another does, and z has no level that
           ///< could drift
};

/// What the masker reads of a patch.
enum class MaskInput {
  held,     ///< its embedding as a constant: the masker is a function of the image (the paper)
  coupled,  ///< its embedding with the graph: the encoder is also trained to lower the weights (the
            ///< authors' code)
  pixels    ///< its pixels, so that the masker does not change with the encoder
};

struct MaskingOptions {
  double ratio = 0.75;
  Selects selects = Selects::rank;
  Weighs weighs = Weighs::probability;
  MaskInput input = MaskInput::held;
  double temperature = 1.0;  ///< τ of `softmax`
  double floor = 0.05;       ///< f of `bounded` and `softmax`
  /// In place of a masker, known maps: the logit of a patch that lies in the map whole; minus that
  /// outside of it.
  double map_logit = 10.0;

  /// Number of visible patches of n. Throws mlo::ConfigError for a ratio that masks all or nothing.
  int64_t visible(int64_t n) const;
};

/// What masks can depend on, of a batch.
struct MaskContext {
  at::Tensor embedded;  ///< [B, N, dim], patch embeddings with positions
  at::Tensor pixels;    ///< [B, N, values], the patches; undefined unless that is what is read
  at::Tensor map;       ///< [B, N], the part of a patch that is in the map; undefined: no map
};

/// Of images [B, C, S, S], and their maps as the channel after the last, if there are any.
MaskContext mask_context(MaskedAutoencoder mae, const at::Tensor& images, MaskInput input);
/// The images without their maps.
at::Tensor without_map(const MaskedAutoencoder& mae, const at::Tensor& images);

/// A mask, and how it came about.
struct Masking {
  Mask mask;
  at::Tensor weights;  ///< float32 [B, N]; undefined: all one
  at::Tensor logits;   ///< z [B, N], detached; undefined where there is neither masker nor map
};

/// Masks by the masker; by the maps where it is null and there are maps; else uniform ones, which
/// count alike. Draws from LibTorch's default generator. The masker computes in float32 under
/// autocast, too. The choice of patches, and with `held` its input, are `mlo::replayed`.
Masking choose_mask(const MaskContext& context, Masker masker, const MaskingOptions& options);

/// The weights alone: logits [B, N], masked [B, N] of 0 and 1 → [B, N].
at::Tensor weights_of(const at::Tensor& logits, const at::Tensor& masked,
                      const MaskingOptions& options);

}  // namespace mlomae
