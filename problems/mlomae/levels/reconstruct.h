#pragma once

#include "mlomae/levels/masking.h"

#include <mlo/problem.h>

#include <functional>
#include <map>
#include <string>

namespace mlomae {

/// Numbers a level reports at each validation.
using Monitor = std::function<std::map<std::string, double>()>;

struct ReconstructOptions {
  MaskingOptions masking = {};
  double uniformity = 0.0;  ///< λ of U-MAE's term; 0: none
  Monitor monitor = {};
};

/// Level 1, Eq. (1):   min over E, D of   Σ_{i masked} w_i · ‖D(E(visible patches))_i − x_i‖² / M
/// The squared error is the mean over a patch's values, the sum runs over the masked patches of all
/// images, M is their number. U-MAE (Zhang et al. 2022) adds λ · mean over pairs of images of
/// (f·f')², f the normalized class tokens. Batch: images [B, C, S, S], with maps [B, C + 1, S, S],
/// then anything. The masker (null: masks by the maps, or uniform ones) is a level above, or
/// nobody's.
class Reconstruct final : public mlo::Problem {
 public:
  Reconstruct(MaskedAutoencoder mae, Masker masker, ReconstructOptions options);
  mlo::Evaluation loss(const mlo::Batch& batch) override;
  std::map<std::string, double> validate() override {
    return options_.monitor ? options_.monitor() : std::map<std::string, double>();
  }

 private:
  MaskedAutoencoder mae_;
  Masker masker_;
  ReconstructOptions options_;
};

/// The same as a function, for levels that add to it.
struct Reconstruction : mlo::Evaluation {
  at::Tensor latent;  ///< [B, 1 + V, dim], the encoder's tokens of the visible patches
};
Reconstruction reconstruction_loss(MaskedAutoencoder mae, Masker masker,
                                   const ReconstructOptions& options, const at::Tensor& images);

}  // namespace mlomae
