#include "mlomae/levels/classify.h"

#include <ATen/ATen.h>
#include <torch/types.h>

namespace mlomae {

mlo::Evaluation classification_loss(MaskedAutoencoder mae, Head head, const mlo::Batch& batch) {
  return classification_loss(std::move(head), mae->features(batch[0]), batch);
}

mlo::Evaluation classification_loss(Head head, const at::Tensor& features,
                                    const mlo::Batch& batch) {
  const at::Tensor logits = head->forward(features).to(batch[0].scalar_type());
  return {at::cross_entropy_loss(logits, batch[1]),
          {{"accuracy", logits.detach().argmax(1).eq(batch[1]).to(at::kFloat).mean()}}};
}

Classify::Classify(Head head, MaskedAutoencoder mae)
    : Problem(mlo::trains(head).uses(mae)), head_(std::move(head)), mae_(std::move(mae)) {}

mlo::Evaluation Classify::loss(const mlo::Batch& batch) {
  return classification_loss(mae_, head_, batch);
}

}  // namespace mlomae
