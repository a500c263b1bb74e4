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

at::Tensor wide(const at::Tensor& x) { return x.element_size() < 4 ? x.to(at::kFloat) : x; }

// Logits [B, N, scores]; undefined: nobody has an opinion.
at::Tensor logits_of(const MaskContext& context, Masker masker, const MaskingOptions& options) {
  if (!masker) {
    if (!context.map.defined()) return {};
    return (options.map_logit * (2.0 * wide(context.map) - 1.0)).unsqueeze(-1);
  }
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  switch (options.input) {
    case MaskInput::pixels: return masker->forward(wide(context.pixels));
    case MaskInput::coupled: return masker->forward(wide(context.embedded));
    case MaskInput::held: break;
  }
  return masker->forward(mlo::replayed([&] { return wide(context.embedded); }));
}

// Patch numbers, the visible ones first.
at::Tensor order_of(const MaskContext& context, const at::Tensor& logits, Selects selects) {
  if (selects == Selects::uniform || !logits.defined())
    return mlo::replayed([&] {
      return ranked(at::rand({context.embedded.size(0), context.embedded.size(1)},
                             at::TensorOptions(context.embedded.device())));
    });
  const at::Tensor scores = logits.detach().select(2, selects == Selects::own ? 1 : 0);
  return mlo::replayed([&] {
    return ranked(selects == Selects::rank ? scores.sigmoid() : scores + gumbel(scores));
  });
}

// Of mean 1 over the masked patches, in the ratios of exp(l); 0 for visible ones. Also where all of
// exp(l) would be 0 or infinite. Of operations that reverse over forward knows.
at::Tensor shares(const at::Tensor& l, const at::Tensor& masked) {
  const at::Tensor hidden = l.masked_fill(masked.eq(0), -INFINITY),
                   e = (hidden - hidden.detach().amax(1, true)).exp();
  return e * (masked.sum(1, true) / e.sum(1, true));
}

// 1, with the derivative of p.
at::Tensor one_by(const at::Tensor& p) { return 1.0 + p - p.detach(); }

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

MaskContext mask_context(MaskedAutoencoder mae, const at::Tensor& images, MaskInput input) {
  const at::Tensor pictures = without_map(mae, images);
  MaskContext context{mae->embed(pictures), {}, {}};
  if (input == MaskInput::pixels) context.pixels = mae->patchify(pictures);
  const int64_t channels = pictures.size(1), patch = mae->options().patch;
  if (images.size(1) > channels)
    context.map = at::avg_pool2d(images.narrow(1, channels, 1), {patch, patch}).flatten(1);
  return context;
}

at::Tensor without_map(const MaskedAutoencoder& mae, const at::Tensor& images) {
  const int64_t channels = mae->options().channels;
  return images.dim() == 4 && images.size(1) == channels + 1 ? images.narrow(1, 0, channels)
                                                             : images;
}

at::Tensor weights_of(const at::Tensor& logits, const at::Tensor& masked,
                      const MaskingOptions& options) {
  switch (options.weighs) {
    case Weighs::alike: return {};
    case Weighs::probability: return logits.sigmoid();
    case Weighs::normalized: return shares(-at::softplus(-logits), masked);  // log σ
    case Weighs::straight_through: return one_by(logits.sigmoid());
    case Weighs::softmax:
      return options.floor * masked +
             (1.0 - options.floor) * shares(logits / options.temperature, masked);
    case Weighs::bounded: {
      const at::Tensor centred = logits - logits.mean(1, true);
      const at::Tensor b = options.floor + (1.0 - options.floor) * centred.sigmoid();
      return b * (masked.sum(1, true) / (b * masked).sum(1, true));
    }
  }
  return {};
}

Masking choose_mask(const MaskContext& context, Masker masker, const MaskingOptions& options) {
  const at::Tensor logits = logits_of(context, masker, options);
  const int64_t visible = options.visible(context.embedded.size(1));
  const Mask mask = Mask::from_order(order_of(context, logits, options.selects), visible);
  if (!logits.defined()) return {mask, {}, {}};
  const at::Tensor counts = logits.select(2, 0);
  at::Tensor weights = weights_of(counts, mask.masked, options);
  if (masker && options.selects == Selects::own) {
    const at::Tensor hides = one_by(logits.select(2, 1).sigmoid());
    weights = weights.defined() ? weights * hides : hides;
  }
  return {mask, weights, counts.detach()};
}

}  // namespace mlomae
