#include "mlomae/levels/merged.h"

#include <torch/types.h>

namespace mlomae {

namespace {

mlo::Trains trains_of(const MaskedAutoencoder& mae, const Head& head, const Masker& masker) {
  mlo::Trains trains = mlo::trains(mae, head);
  if (!masker.is_empty()) trains.uses(masker);
  return trains;
}

}  // namespace

Merged::Merged(MaskedAutoencoder mae, Head head, Masker masker, ReconstructOptions options,
               double tradeoff, Classifies classifies)
    : Problem(trains_of(mae, head, masker)),
      mae_(std::move(mae)),
      head_(std::move(head)),
      masker_(std::move(masker)),
      options_(std::move(options)),
      tradeoff_(tradeoff),
      classifies_(classifies) {}

mlo::Evaluation Merged::loss(const mlo::Batch& batch) {
  Reconstruction reconstruction = reconstruction_loss(mae_, masker_, options_, batch[0]);
  const mlo::Evaluation classification =
      classifies_ == Classifies::visible
          ? classification_loss(head_, read_by(head_, reconstruction.latent), batch)
          : classification_loss(mae_, head_, batch);
  auto metrics = std::move(reconstruction.metrics);
  metrics.insert(metrics.end(), classification.metrics.begin(), classification.metrics.end());
  metrics.emplace_back("classification", classification.loss.detach());
  return {reconstruction.loss + tradeoff_ * classification.loss, std::move(metrics)};
}

}  // namespace mlomae
