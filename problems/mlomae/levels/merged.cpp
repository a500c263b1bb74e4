#include "mlomae/levels/merged.h"

#include <torch/types.h>

namespace mlomae {

Merged::Merged(MaskedAutoencoder mae, Head head, Masker masker, ReconstructOptions options,
               double tradeoff)
    : Problem(mlo::trains(mae, head).uses(masker)),
      mae_(std::move(mae)),
      head_(std::move(head)),
      masker_(std::move(masker)),
      options_(std::move(options)),
      tradeoff_(tradeoff) {}

mlo::Evaluation Merged::loss(const mlo::Batch& batch) {
  mlo::Evaluation reconstruction = reconstruction_loss(mae_, masker_, options_, batch[0]);
  const mlo::Evaluation classification = classification_loss(mae_, head_, batch);
  auto metrics = std::move(reconstruction.metrics);
  metrics.insert(metrics.end(), classification.metrics.begin(), classification.metrics.end());
  metrics.emplace_back("classification", classification.loss.detach());
  return {reconstruction.loss + tradeoff_ * classification.loss, std::move(metrics)};
}

}  // namespace mlomae
