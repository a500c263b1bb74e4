// Masks, weights and the losses of the levels and baselines, against their formulas.
#include "mlomae/levels/merged.h"

#include "support.h"

#include "catch.h"

using namespace mlomae;

namespace {

ModelOptions small_options() {
  ModelOptions o;
  o.image_size = 12, o.patch = 4, o.dim = 16, o.depth = 2, o.heads = 2, o.decoder_dim = 8,
  o.decoder_depth = 1, o.decoder_heads = 2;
  return o;
}

double value(const at::Tensor& t) { return t.item<double>(); }

}  // namespace

TEST_CASE("Masks hide the part that was asked for, and refuse to hide all or nothing",
          "[mlomae][masking]") {
  CHECK(MaskingOptions{.ratio = 0.75}.visible(64) == 16);
  CHECK(MaskingOptions{.ratio = 0.9}.visible(100) == 10);
  CHECK(MaskingOptions{.ratio = 0.75}.visible(49) == 12);
  for (const double ratio : {0.0, 1.0, 0.99, -1.0})
    CHECK_THROWS_WITH((MaskingOptions{.ratio = ratio}.visible(9)),
                      Contains("masker.ratio") && Contains("one masked"));

  torch::manual_seed(1);
  Networks n(small_options(), 12, 3);
  const at::Tensor embedded = n.mae->embed(torch::randn({5, 3, 12, 12}, at::kDouble));
  for (const auto selection : {Selection::uniform, Selection::rank, Selection::sampled}) {
    const Masking m = choose_mask(embedded, n.masker, {.ratio = 0.5, .selection = selection});
    CHECK(m.mask.visible.sizes() == at::IntArrayRef({5, 4}));
    CHECK(at::equal(m.mask.masked.sum(1), torch::full({5}, 5.0, at::kFloat)));
    // A patch is visible exactly if it is not masked, and `restore` finds it.
    CHECK(at::equal(m.mask.masked.gather(1, m.mask.visible), torch::zeros({5, 4})));
    CHECK(at::equal(m.mask.restore.gather(1, m.mask.visible), torch::arange(4).expand({5, 4})));
    CHECK(m.weights.defined() == (selection != Selection::uniform));
  }
  // By rank: no visible patch is more probable than a masked one.
  const Masking m = choose_mask(embedded, n.masker, {.ratio = 0.5, .selection = Selection::rank});
  const at::Tensor masked = m.mask.masked.to(at::kDouble);
  CHECK((m.probabilities * (1 - masked))
            .amax(1)
            .le((m.probabilities + 2 * (1 - masked)).amin(1))
            .all()
            .item<bool>());
}

TEST_CASE(
    "Sampled masks follow the logits: alike if these are alike, as a loop over draws says "
    "otherwise",
    "[mlomae][masking]") {
  torch::manual_seed(2);
  Masker flat(MaskerOptions{.patches = 4, .dim = 2, .hidden = 3, .zero_output = true});
  const at::Tensor embedded = torch::randn({20000, 4, 2});
  const MaskingOptions half{.ratio = 0.5, .selection = Selection::sampled};
  const at::Tensor rate = choose_mask(embedded, flat, half).mask.masked.mean(0);
  CHECK((rate - 0.5).abs().max().item<double>() < 0.015);  // four standard errors
  // Biased logits l: patches are masked one after the other, each with probability ∝ exp(l) of
  // those that are left.
  Masker biased(MaskerOptions{.patches = 4, .dim = 2, .hidden = 3, .zero_output = true});
  const std::vector<double> logits = {1.0, 0.0, -1.0, 0.5};
  {
    const at::NoGradGuard no_grad;
    biased->named_parameters()["output_layer.bias"].copy_(torch::tensor(logits));
  }
  const at::Tensor biased_rate = choose_mask(embedded, biased, half).mask.masked.mean(0);
  for (std::size_t i = 0; i < 4; ++i) {
    double sum = 0.0, expected = 0.0;
    for (const double l : logits) sum += std::exp(l);
    for (std::size_t first = 0; first < 4; ++first) {
      const double p = std::exp(logits[first]) / sum;
      expected += first == i ? p : p * std::exp(logits[i]) / (sum - std::exp(logits[first]));
    }
    CHECK(biased_rate[static_cast<int64_t>(i)].item<double>() == Approx(expected).margin(0.015));
  }
}

TEST_CASE("Weights of masked patches are what their names say", "[mlomae][masking]") {
  torch::manual_seed(3);
  Networks n(small_options(), 12, 3);
  const at::Tensor embedded = n.mae->embed(torch::randn({5, 3, 12, 12}, at::kDouble)).detach();
  const auto masking = [&](Weights w) {
    return choose_mask(embedded, n.masker,
                       {.ratio = 0.5, .selection = Selection::rank, .weights = w});
  };
  const Masking p = masking(Weights::probability), normalized = masking(Weights::normalized),
                through = masking(Weights::straight_through);
  CHECK(at::equal(p.weights.detach(), p.probabilities));
  const at::Tensor masked = p.mask.masked.to(at::kDouble);
  CHECK(at::allclose((normalized.weights * masked).sum(1), masked.sum(1), 1e-12, 0));
  CHECK(at::allclose((normalized.weights / p.weights).detach().std(1),
                     torch::zeros({5}, at::kDouble), 0, 1e-12));
  CHECK(at::allclose(through.weights, torch::ones_like(through.weights), 1e-15, 0));
  const auto gradient = [&](const at::Tensor& w) {
    return torch::autograd::grad({(w * masked).sum()}, n.masker->parameters());
  };
  CHECK(relative(gradient(through.weights), gradient(p.weights)) < 1e-14);
  // Lowering all of them alike is no way out where they are normalized: the derivative of their sum
  // is zero.
  double size = 0.0;
  for (const at::Tensor& g : gradient(normalized.weights))
    size = std::max(size, value(g.abs().max()));
  CHECK(size < 1e-14);
}

TEST_CASE("T reads constants where its input is held", "[mlomae][masking]") {
  Networks n(small_options(), 12, 3);
  const at::Tensor images = torch::randn({5, 3, 12, 12}, at::kDouble);
  for (const auto input : {MaskInput::held, MaskInput::coupled}) {
    const Masking m = choose_mask(n.mae->embed(images), n.masker,
                                  {.ratio = 0.5, .selection = Selection::rank, .input = input});
    const at::Tensor g = torch::autograd::grad(
        {m.weights.sum()}, {n.mae->named_parameters()["patch_embed.proj.weight"]}, {}, false, false,
        true)[0];
    CHECK(g.defined() == (input == MaskInput::coupled));
  }
}

TEST_CASE("Reconstruction, uniformity and the merged loss are their formulas", "[mlomae][levels]") {
  torch::manual_seed(4);
  Networks n(small_options(), 12, 3);
  const mlo::Batch batch{torch::randn({5, 3, 12, 12}, at::kDouble), torch::tensor({0, 1, 2, 0, 1})};
  ReconstructOptions options{.masking = {.ratio = 0.5, .selection = Selection::rank}};
  const mlo::Evaluation plain = reconstruction_loss(n.mae, n.masker, options, batch[0]);

  const Masking m = choose_mask(n.mae->embed(batch[0]), n.masker, options.masking);
  const at::Tensor prediction = n.mae->reconstruct(batch[0], m.mask),
                   target = n.mae->targets(batch[0]);
  double sum = 0.0, count = 0.0;
  for (int64_t b = 0; b < 5; ++b) {
    for (int64_t i = 0; i < 9; ++i) {
      if (m.mask.masked[b][i].item<double>() == 0.0) continue;
      sum +=
          value(m.probabilities[b][i]) * value((prediction[b][i] - target[b][i]).square().mean());
      ++count;
    }
  }
  CHECK(value(plain.loss) == Approx(sum / count).epsilon(1e-12));

  options.uniformity = 0.3;
  const at::Tensor features = n.mae->encode(n.mae->embed(batch[0]), m.mask).select(1, 0);
  double pairs = 0.0;
  for (int64_t a = 0; a < 5; ++a)
    for (int64_t b = 0; b < 5; ++b)
      pairs += std::pow(value(torch::cosine_similarity(features[a], features[b], 0)), 2) / 25.0;
  CHECK(value(reconstruction_loss(n.mae, n.masker, options, batch[0]).loss) ==
        Approx(value(plain.loss) + 0.3 * pairs).epsilon(1e-10));

  options.uniformity = 0.0;
  Merged merged(n.mae, n.head, n.masker, options, 0.25);
  CHECK(value(merged.loss(batch).loss) ==
        Approx(value(plain.loss) + 0.25 * value(classification_loss(n.mae, n.head, batch).loss))
            .epsilon(1e-12));
}
