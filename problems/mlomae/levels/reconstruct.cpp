#include "mlomae/levels/reconstruct.h"

#include <torch/nn/functional/normalization.h>

namespace mlomae {
namespace {

mlo::Trains trains_of(const MaskedAutoencoder& mae, const Masker& masker) {
  mlo::Trains trains = mlo::trains(mae);
  if (!masker.is_empty()) trains.uses(masker);
  return trains;
}

// How many of an image's masked patches count, (Σ w)² / Σ w²: all of them where they count alike.
at::Tensor effective(const at::Tensor& weights) {
  return weights.sum(1).square() / weights.square().sum(1).clamp_min(1e-30);
}

// Zhang et al. 2022, Eq. 12, on class tokens.
at::Tensor uniformity(const at::Tensor& features) {
  const at::Tensor unit = torch::nn::functional::normalize(features);
  return unit.matmul(unit.t()).square().mean();
}

}  // namespace

Reconstruct::Reconstruct(MaskedAutoencoder mae, Masker masker, ReconstructOptions options)
    : Problem(trains_of(mae, masker)),
      mae_(std::move(mae)),
      masker_(std::move(masker)),
      options_(std::move(options)) {}

mlo::Evaluation Reconstruct::loss(const mlo::Batch& batch) {
  return reconstruction_loss(mae_, masker_, options_, batch[0]);
}

Reconstruction reconstruction_loss(MaskedAutoencoder mae, Masker masker,
                                   const ReconstructOptions& options, const at::Tensor& given) {
  const at::Tensor images = without_map(mae, given);
  const MaskContext context = mask_context(mae, given, options.masking.input);
  const Masking masking = choose_mask(context, masker, options.masking);
  const at::Tensor latent = mae->encode(context.embedded, masking.mask);
  const at::Tensor predictions = mae->decode(latent, masking.mask).to(images.scalar_type());
  const at::Tensor errors =
      (predictions - mae->targets(images)).square().mean(-1) * masking.mask.masked;
  const at::Tensor count = masking.mask.masked.sum();
  at::Tensor loss = (masking.weights.defined() ? errors * masking.weights : errors).sum() / count;

  std::vector<std::pair<std::string, at::Tensor>> metrics = {
      {"reconstruction", errors.detach().sum() / count}};
  if (masking.logits.defined()) {
    const at::Tensor probabilities = masking.logits.sigmoid();
    metrics.emplace_back("probability_mean", probabilities.mean());
    metrics.emplace_back("probability_deviation", probabilities.std());
    metrics.emplace_back("position_deviation", probabilities.mean(0).std());
  }
  if (masking.weights.defined())
    metrics.emplace_back("effective_patches",
                         effective(masking.weights.detach() * masking.mask.masked).mean());
  if (options.uniformity > 0.0) {
    const at::Tensor term = uniformity(latent.select(1, 0).to(images.scalar_type()));
    metrics.emplace_back("uniformity", term.detach());
    loss = loss + options.uniformity * term;
  }
  return {{loss, std::move(metrics)}, latent};
}

}  // namespace mlomae
