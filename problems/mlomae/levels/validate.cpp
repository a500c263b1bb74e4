#include "mlomae/levels/validate.h"

namespace mlomae {

Validate::Validate(Masker masker, MaskedAutoencoder mae, Head head)
    : Problem(mlo::trains(masker).uses(mae, head)), mae_(std::move(mae)), head_(std::move(head)) {}

mlo::Evaluation Validate::loss(const mlo::Batch& batch) {
  return classification_loss(mae_, head_, batch);
}

}  // namespace mlomae
