#pragma once

#include "mlomae/levels/classify.h"
#include "mlomae/models/masker.h"

namespace mlomae {

/// Level 3, Eq. (3):   min over T of   cross_entropy(C*(E*(x)), y)   on the validation split. The
/// masker T enters through E* and C* only.
class Validate final : public mlo::Problem {
 public:
  Validate(Masker masker, MaskedAutoencoder mae, Head head);
  mlo::Evaluation loss(const mlo::Batch& batch) override;

 private:
  MaskedAutoencoder mae_;
  Head head_;
};

}  // namespace mlomae
