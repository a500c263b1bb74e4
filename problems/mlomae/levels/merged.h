#pragma once

#include "mlomae/levels/classify.h"
#include "mlomae/levels/reconstruct.h"

namespace mlomae {

/// BLO-MAE, Eq. (5): levels 1 and 2 as one,   min over E, D, C of   L_reconstruction + λ ·
/// cross_entropy(C(E(x)), y),   on the same images. Batch: images, labels.
class Merged final : public mlo::Problem {
 public:
  Merged(MaskedAutoencoder mae, Head head, Masker masker, ReconstructOptions options,
         double tradeoff);
  mlo::Evaluation loss(const mlo::Batch& batch) override;
  std::map<std::string, double> validate() override {
    return options_.monitor ? options_.monitor() : std::map<std::string, double>();
  }

 private:
  MaskedAutoencoder mae_;
  Head head_;
  Masker masker_;
  ReconstructOptions options_;
  double tradeoff_;
};

}  // namespace mlomae
