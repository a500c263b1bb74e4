#include "mlomae/levels/masking.h"

#include "mlomae/message.h"

#include <ATen/ATen.h>
#include <mlo/replayed.h>
#include <torch/types.h>

namespace mlomae {
namespace {

// Ascending: those to be masked last.
at::Tensor ranked(const at::Tensor& scores) {
  return scores.detach().argsort(/*stable=*/true, 1, /*descending=*/false);
}

at::Tensor gumbel(const at::Tensor& like) {
  // A draw of 0 would be infinite; the smallest normal number is as unlikely as any.
  return -(-at::rand_like(like).clamp_min(std::numeric_limits<float>::min()).log()).log();
}

at::Tensor weights_of(const at::Tensor& probabilities, const at::Tensor& masked, Weights kind) {
  switch (kind) {
    case Weights::probability: return probabilities;
    case Weights::normalized:
      return probabilities *
             (masked.sum(1, true) / (probabilities * masked).sum(1, true).clamp_min(1e-12));
    case Weights::straight_through: return 1.0 + probabilities - probabilities.detach();
  }
  return {};
}

}  // namespace

int64_t MaskingOptions::visible(int64_t n) const {
  // The fraction may be a hair below the number that is meant: 1 − 0.9 of 100.
  const auto visible =
      static_cast<int64_t>(std::floor(static_cast<double>(n) * (1.0 - ratio) + 1e-9));
  if (!(ratio > 0.0 && ratio < 1.0) || visible < 1 || visible >= n)
    refuse(
        "masker.ratio = {} of {} patches masks {} of them; at least one must stay visible and one "
        "masked: choose between {:.3g} and {:.3g}",
        ratio, n, ratio > 0.5 ? "all" : "none", 1.0 / static_cast<double>(n),
        1.0 - 1.0 / static_cast<double>(n));
  return visible;
}

Masking choose_mask(const at::Tensor& embedded, Masker masker, const MaskingOptions& options) {
  const int64_t batch = embedded.size(0), patches = embedded.size(1),
                visible = options.visible(patches);
  if (options.selection == Selection::uniform) {
    const at::Tensor order = mlo::replayed([&] {
      return ranked(torch::rand({batch, patches}, embedded.device()));
    });
    return {Mask::from_order(order, visible), {}, {}};
  }
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const at::Tensor wide = embedded.element_size() < 4 ? embedded.to(at::kFloat) : embedded;
  const at::Tensor input =
      options.input == MaskInput::held ? mlo::replayed([&] { return wide; }) : wide;
  const at::Tensor logits = masker->forward(input), probabilities = logits.sigmoid();
  const at::Tensor order = mlo::replayed([&] {
    return ranked(options.selection == Selection::rank ? probabilities
                                                       : logits.detach() + gumbel(logits.detach()));
  });
  const Mask mask = Mask::from_order(order, visible);
  return {mask, weights_of(probabilities, mask.masked, options.weights), probabilities.detach()};
}

}  // namespace mlomae
