#include "mlomae/levels/validate.h"

namespace mlomae {

Validate::Validate(MaskingNetwork network, MaskedAutoencoder mae, Head head)
    : Problem(mlo::trains(network).uses(mae, head)), mae_(std::move(mae)), head_(std::move(head)) {}

mlo::Evaluation Validate::loss(const mlo::Batch& batch) {
  return classification_loss(mae_, head_, batch);
}

}  // namespace mlomae
