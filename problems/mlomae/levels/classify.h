#pragma once

#include "mlomae/models/head.h"
#include "mlomae/models/masked_autoencoder.h"

#include <mlo/problem.h>

namespace mlomae {

/// Cross entropy and accuracy of C(E(images)). Batch: images [B, C, S, S], labels int64 [B].
mlo::Evaluation classification_loss(MaskedAutoencoder mae, Head head, const mlo::Batch& batch);
/// Of tokens [B, 1 + n, dim], class token first, what the head reads: [B, dim].
at::Tensor read_by(const Head& head, const at::Tensor& tokens);
/// The same of features [B, dim] in place of E(images).
mlo::Evaluation classification_loss(Head head, const at::Tensor& features, const mlo::Batch& batch);

/// Level 2, Eq. (2):   min over C of   cross_entropy(C(E(x)), y)   on the training split.
class Classify final : public mlo::Problem {
 public:
  Classify(Head head, MaskedAutoencoder mae);
  mlo::Evaluation loss(const mlo::Batch& batch) override;

 private:
  Head head_;
  MaskedAutoencoder mae_;
};

}  // namespace mlomae
