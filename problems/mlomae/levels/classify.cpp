#include "mlomae/levels/classify.h"

#include <ATen/ATen.h>
#include <torch/types.h>

namespace mlomae {

mlo::Evaluation classification_loss(MaskedAutoencoder mae, Head head, const mlo::Batch& batch) {
  const at::Tensor features = head->options().reads == Reads::class_token
                                  ? mae->features(batch[0])
                                  : read_by(head, mae->tokens(batch[0]));
  return classification_loss(head, features, batch);
}

at::Tensor read_by(const Head& head, const at::Tensor& tokens) {
  if (head->options().reads == Reads::class_token) return tokens.select(1, 0);
  return tokens.narrow(1, 1, tokens.size(1) - 1).mean(1);
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
