#pragma once

#include "mlomae/models/masked_autoencoder.h"
#include "mlomae/models/masker.h"

namespace mlomae {

/// Which patches are masked.
enum class Selection {
  uniform,  ///< any of them alike (MAE)
  rank,     ///< those of highest probability (the paper)
  sampled   ///< without replacement, by the masker's logits: the highest logits plus Gumbel noise.
            ///< Equal logits: MAE's masks
};

/// The weight w_i of a masked patch's error in the loss, p_i = σ(T(x))_i. It is what the
/// masker's gradient
/// comes through.
enum class Weights {
  probability,  ///< p_i (the paper's Eq. 1)
  normalized,   ///< p_i · M / Σ p over the M masked patches: their sum is M, so errors cannot be
                ///< lowered by lowering all p
  straight_through  ///< 1, with the derivative of p_i (the paper's A.4)
};

/// What the masker reads.
enum class MaskInput {
  held,    ///< the patch embeddings as constants: the masker is a function of the image (the paper)
  coupled  ///< the patch embeddings with their graph: the encoder is also trained to lower the
           ///< weights (the authors' code)
};

struct MaskingOptions {
  double ratio = 0.75;
  Selection selection = Selection::rank;
  Weights weights = Weights::probability;
  MaskInput input = MaskInput::held;

  /// Number of visible patches of n. Throws mlo::ConfigError for a ratio that masks all or nothing.
  int64_t visible(int64_t n) const;
};

/// A mask, and how it came about.
struct Masking {
  Mask mask;
  at::Tensor weights;        ///< float32 [B, N]; undefined: all one
  at::Tensor probabilities;  ///< p [B, N], detached; undefined for uniform masks
};

/// Masks for embedded patches [B, N, dim]. Draws from LibTorch's default generator. The masker
/// (null for uniform masks) computes in float32 under autocast, too. The choice of patches, and
/// with `held` its input, are `mlo::replayed`.
Masking choose_mask(const at::Tensor& embedded, Masker masker, const MaskingOptions& options);

}  // namespace mlomae
