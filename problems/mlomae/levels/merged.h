#pragma once

#include "mlomae/levels/classify.h"
#include "mlomae/levels/reconstruct.h"

namespace mlomae {

/// What the classifier of a merged level is given.
enum class Classifies { image, visible };

/// BLO-MAE, Eq. (5): levels 1 and 2 as one,   min over E, D, C of   L_reconstruction + λ ·
/// cross_entropy(C(E(x)), y),   on the same images. SupMAE (Liang et al. 2022): the same with
/// uniform masks (masker null), the class token being of the `visible` patches alone. Batch:
/// images, labels.
class Merged final : public mlo::Problem {
 public:
  Merged(MaskedAutoencoder mae, Head head, Masker masker, ReconstructOptions options,
         double tradeoff, Classifies classifies = Classifies::image);
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
  Classifies classifies_;
};

}  // namespace mlomae
