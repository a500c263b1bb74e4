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
  const MaskContext embedded{n.mae->embed(torch::randn({5, 3, 12, 12}, at::kDouble)), {}, {}};
  for (const auto selection : {Selects::uniform, Selects::rank, Selects::sampled}) {
    const Masking m = choose_mask(embedded, n.masker, {.ratio = 0.5, .selects = selection});
    CHECK(m.mask.visible.sizes() == at::IntArrayRef({5, 4}));
    CHECK(at::equal(m.mask.masked.sum(1), torch::full({5}, 5.0, at::kFloat)));
    // A patch is visible exactly if it is not masked, and `restore` finds it.
    CHECK(at::equal(m.mask.masked.gather(1, m.mask.visible), torch::zeros({5, 4})));
    CHECK(at::equal(m.mask.restore.gather(1, m.mask.visible), torch::arange(4).expand({5, 4})));
    CHECK(m.weights.defined());
  }
  // By rank: no visible patch is more probable than a masked one.
  const Masking m = choose_mask(embedded, n.masker, {.ratio = 0.5, .selects = Selects::rank});
  const at::Tensor masked = m.mask.masked.to(at::kDouble);
  const at::Tensor probabilities = m.logits.sigmoid();
  CHECK((probabilities * (1 - masked))
            .amax(1)
            .le((probabilities + 2 * (1 - masked)).amin(1))
            .all()
            .item<bool>());
}

TEST_CASE(
    "Sampled masks follow the logits: alike if these are alike, as a loop over draws says "
    "otherwise",
    "[mlomae][masking]") {
  torch::manual_seed(2);
  Masker flat(MaskerOptions{.patches = 4, .dim = 2, .hidden = 3, .zero_output = true});
  const MaskContext embedded{torch::randn({20000, 4, 2}), {}, {}};
  const MaskingOptions half{.ratio = 0.5, .selects = Selects::sampled};
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
  const at::Tensor z = torch::randn({5, 9}, at::kDouble).requires_grad_();
  const at::Tensor masked = (torch::rand({5, 9}).argsort(int64_t{1}) < 5).to(at::kDouble);
  const auto weights = [&](MaskingOptions options) { return weights_of(z, masked, options); };
  const auto sums = [&](const at::Tensor& w) { return (w * masked).sum(1, true); };
  const at::Tensor count = masked.sum(1, true), p = z.sigmoid();
  const MaskingOptions softmax{.weighs = Weighs::softmax, .temperature = 0.5},
      bounded{.weighs = Weighs::bounded, .floor = 0.1};
  CHECK(!weights({.weighs = Weighs::alike}).defined());
  CHECK(at::equal(weights({.weighs = Weighs::probability}), p));
  CHECK(at::allclose(weights({.weighs = Weighs::normalized}), masked * p * count / sums(p), 1e-12,
                     0));
  CHECK(at::allclose(weights({.weighs = Weighs::straight_through}), torch::ones_like(p), 1e-15, 0));
  const at::Tensor e = (z / 0.5).exp() * masked;
  CHECK(at::allclose(weights(softmax), masked * 0.05 + 0.95 * e * count / sums(e), 1e-12, 0));
  const at::Tensor b = 0.1 + 0.9 * (z - z.mean(1, true)).sigmoid();
  CHECK(at::allclose(weights(bounded), b * count / sums(b), 1e-12, 0));

  const auto gradient = [&](const at::Tensor& w) {
    return torch::autograd::grad({(w * masked).square().sum()}, {z})[0];
  };
  CHECK(at::allclose(gradient(weights({.weighs = Weighs::straight_through})),
                     2.0 * (p * (1.0 - p) * masked).detach(), 1e-12, 0));
  // Raising all logits of an image alike does nothing where only comparisons count.
  for (const MaskingOptions& options : {softmax, bounded})
    CHECK(gradient(weights(options)).sum(1).abs().max().item<double>() < 1e-13);
  CHECK(gradient(weights({.weighs = Weighs::probability})).sum(1).abs().max().item<double>() > 0.1);
  // Lowering all probabilities alike is no way out where they are normalized.
  const at::Tensor normalized = weights({.weighs = Weighs::normalized});
  CHECK(torch::autograd::grad({(normalized * masked).sum()}, {z})[0].abs().max().item<double>() <
        1e-14);
  // Large logits are no obstacle, nor a visible patch with the largest.
  const at::Tensor far = z.detach() * 1e4 + (1.0 - masked) * 1e6;
  for (const MaskingOptions& options : {softmax, bounded})
    CHECK(at::allclose(sums(weights_of(far, masked, options)), count, 1e-12, 0));
  CHECK(at::allclose(sums(weights_of(far - 1e6, masked, {.weighs = Weighs::normalized})), count,
                     1e-12, 0));
}

TEST_CASE("T reads constants where its input is held, and nothing of the encoder in pixels",
          "[mlomae][masking]") {
  Networks n(small_options(), 12, 3);
  Masker of_pixels(MaskerOptions{.patches = 9, .dim = 48, .hidden = 12});
  of_pixels->to(at::kDouble);
  const at::Tensor images = torch::randn({5, 3, 12, 12}, at::kDouble);
  for (const auto input : {MaskInput::held, MaskInput::coupled, MaskInput::pixels}) {
    const Masking m = choose_mask(mask_context(n.mae, images, input),
                                  input == MaskInput::pixels ? of_pixels : n.masker,
                                  {.ratio = 0.5, .selects = Selects::rank, .input = input});
    const at::Tensor g = torch::autograd::grad(
        {m.weights.sum()}, {n.mae->named_parameters()["patch_embed.proj.weight"]}, {}, false, false,
        true)[0];
    CHECK(g.defined() == (input == MaskInput::coupled));
  }
}

TEST_CASE("A masker's own score for hiding is what masks are drawn by, and has a derivative",
          "[mlomae][masking]") {
  torch::manual_seed(5);
  Masker masker(MaskerOptions{
      .network = Network::positions, .patches = 9, .dim = 2, .scores = 2, .zero_output = true});
  at::Tensor table = masker->named_parameters()["table"];
  table.mutable_data_ptr<float>()[1] = 50.0F;  // the second score of the first patch
  const MaskingOptions options{.ratio = 0.5, .selects = Selects::own, .weighs = Weighs::bounded};
  const Masking m = choose_mask({torch::zeros({200, 9, 2}), {}, {}}, masker, options);
  CHECK(m.mask.masked.select(1, 0).eq(1).all().item<bool>());
  CHECK(m.mask.masked.select(1, 1).mean().item<double>() < 0.7);
  CHECK(at::allclose(m.weights.detach(), torch::ones({200, 9}), 1e-6, 0));
  const at::Tensor g = torch::autograd::grad({m.weights.sum()}, {table})[0];
  // d(1 + p − p)/dz of the second score: σ' = 1/4 at zero, for each of 200 images.
  CHECK(g[3][1].item<double>() == Approx(50.0).epsilon(1e-4));
  CHECK(g[0][1].item<double>() == Approx(0.0).margin(1e-4));
}

TEST_CASE("Maskers that are shared by patches move with the image, a table does not",
          "[mlomae][masking]") {
  torch::manual_seed(6);
  const auto masker = [](Network network, int64_t scores = 1) {
    Masker m(
        MaskerOptions{.network = network, .patches = 16, .dim = 5, .hidden = 8, .scores = scores});
    m->to(at::kDouble);
    return m;
  };
  const at::Tensor inner = torch::zeros({2, 4, 4, 5}, at::kDouble);
  inner.narrow(1, 1, 1).narrow(2, 1, 1).copy_(torch::randn({2, 1, 1, 5}));
  const at::Tensor moved = inner.roll({1}, {2});
  const auto by = [](Masker m, const at::Tensor& grid) {
    return m->forward(grid.flatten(1, 2)).view({2, 4, 4, -1}).detach();
  };
  // One patch with its neighbours, anywhere inside: the same scores, elsewhere.
  Masker convolution = masker(Network::convolution);
  const at::Tensor here = by(convolution, inner), there = by(convolution, moved);
  CHECK(at::allclose(here.narrow(2, 0, 3), there.narrow(2, 1, 3), 1e-12, 1e-12));
  CHECK(!at::allclose(here, there, 1e-3, 1e-3));
  Masker table = masker(Network::positions);
  CHECK(at::equal(by(table, inner), by(table, moved)));
  CHECK(at::equal(by(table, inner)[0], by(table, inner)[1]));
  // The convolution's formula, at one patch.
  const auto parameters = convolution->named_parameters();
  const at::Tensor a = torch::relu(torch::conv2d(
      inner.permute({0, 3, 1, 2}), parameters["around.weight"], parameters["around.bias"], 1, 1));
  const at::Tensor both = torch::cat({a.select(3, 2).select(2, 1), a.mean({2, 3})}, 1);
  const at::Tensor score = torch::linear(
      torch::relu(torch::linear(both, parameters["mix.weight"], parameters["mix.bias"])),
      parameters["output_layer.weight"], parameters["output_layer.bias"]);
  CHECK(at::allclose(here.select(1, 1).select(1, 2), score.detach(), 1e-12, 1e-12));
  for (const auto network :
       {Network::image, Network::convolution, Network::attention, Network::positions}) {
    CHECK(masker(network, 2)->forward(inner.flatten(1, 2)).sizes() == at::IntArrayRef({2, 16, 2}));
    Masker zero(MaskerOptions{
        .network = network, .patches = 16, .dim = 5, .hidden = 8, .zero_output = true});
    CHECK(zero->forward(torch::randn({2, 16, 5})).abs().max().item<double>() == 0.0);
  }
  CHECK_THROWS_WITH(Masker(MaskerOptions{.network = Network::attention, .hidden = 6}),
                    Contains("masker.hidden = 6") && Contains("multiple of 4"));
}

TEST_CASE("Known maps are masks and weights where there is no masker", "[mlomae][masking]") {
  torch::manual_seed(7);
  Networks n(small_options(), 12, 3);
  at::Tensor images = torch::randn({6, 4, 12, 12}, at::kDouble);
  images.narrow(1, 3, 1).zero_();
  images.narrow(1, 3, 1).narrow(2, 0, 4).narrow(3, 4, 6).fill_(1.0);  // patch 1, half of patch 2
  const MaskContext context = mask_context(n.mae, images, MaskInput::held);
  CHECK(at::equal(context.map[0],
                  torch::tensor({0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}, at::kDouble)));
  const Masking m = choose_mask(
      context, nullptr,
      {.ratio = 0.5, .selects = Selects::rank, .weighs = Weighs::probability, .map_logit = 3.0});
  CHECK(at::equal(m.logits[0].narrow(0, 0, 4), torch::tensor({-3.0, 3.0, 0.0, -3.0}, at::kDouble)));
  CHECK(at::equal(m.mask.masked.narrow(1, 1, 2), torch::ones({6, 2})));
  CHECK(at::allclose(m.weights, m.logits.sigmoid()));
  // The loss is that of the images, weighted so; maps are read by nobody else.
  const ReconstructOptions options{
      .masking = {.ratio = 0.5, .selects = Selects::rank, .weighs = Weighs::alike}};
  const at::Tensor with = reconstruction_loss(n.mae, nullptr, options, images).loss;
  const at::Tensor targets = n.mae->targets(images.narrow(1, 0, 3));
  const at::Tensor errors =
      (n.mae->reconstruct(images.narrow(1, 0, 3), m.mask) - targets).square().mean(-1);
  CHECK(value(with) ==
        Approx(value((errors * m.mask.masked).sum() / m.mask.masked.sum())).epsilon(1e-12));
}

TEST_CASE("Reconstruction, uniformity and the merged loss are their formulas", "[mlomae][levels]") {
  torch::manual_seed(4);
  Networks n(small_options(), 12, 3);
  const mlo::Batch batch{torch::randn({5, 3, 12, 12}, at::kDouble), torch::tensor({0, 1, 2, 0, 1})};
  ReconstructOptions options{.masking = {.ratio = 0.5, .selects = Selects::rank}};
  const mlo::Evaluation plain = reconstruction_loss(n.mae, n.masker, options, batch[0]);

  const Masking m = choose_mask({n.mae->embed(batch[0]), {}, {}}, n.masker, options.masking);
  const at::Tensor probabilities = m.logits.sigmoid(),
                   prediction = n.mae->reconstruct(batch[0], m.mask),
                   target = n.mae->targets(batch[0]);
  double sum = 0.0, count = 0.0;
  for (int64_t b = 0; b < 5; ++b) {
    for (int64_t i = 0; i < 9; ++i) {
      if (m.mask.masked[b][i].item<double>() == 0.0) continue;
      sum += value(probabilities[b][i]) * value((prediction[b][i] - target[b][i]).square().mean());
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

  // SupMAE: uniform masks, the classifier on the visible patches' class token.
  const auto seeded = [&] {
    torch::manual_seed(8);
    return reconstruction_loss(n.mae, nullptr, {.masking = {.selects = Selects::uniform}},
                               batch[0]);
  };
  const Reconstruction uniform = seeded();
  torch::manual_seed(8);
  Merged supervised(n.mae, n.head, nullptr, {.masking = {.selects = Selects::uniform}}, 0.25,
                    Classifies::visible);
  const at::Tensor logits = n.head->forward(uniform.latent.select(1, 0));
  CHECK(value(supervised.loss(batch).loss) ==
        Approx(value(uniform.loss) + 0.25 * value(torch::cross_entropy_loss(logits, batch[1])))
            .epsilon(1e-12));
}

TEST_CASE("A head reads the class token or the mean of patches, normalized by image or by batch",
          "[mlomae][levels]") {
  torch::manual_seed(9);
  Networks n(small_options(), 12, 3);
  const at::Tensor images = torch::randn({6, 3, 12, 12}, at::kDouble),
                   labels = torch::tensor({0, 1, 2, 0, 1, 2}), tokens = n.mae->tokens(images);
  for (const auto reads : {Reads::class_token, Reads::mean})
    for (const auto norm : {HeadNorm::layer, HeadNorm::batch}) {
      Head head(HeadOptions{.dim = 16, .classes = 3, .dropout = 0.0, .norm = norm, .reads = reads});
      head->to(at::kDouble);
      const at::Tensor x = reads == Reads::mean ? tokens.slice(1, 1).mean(1) : tokens.select(1, 0);
      const int64_t along = norm == HeadNorm::batch ? 0 : 1;
      const at::Tensor centred = x - x.mean(along, true),
                       unit = centred / (centred.square().mean(along, true) + 1e-6).sqrt();
      auto parameters = head->named_parameters();
      CHECK(parameters.contains("fc_norm.weight") == (norm == HeadNorm::layer));
      const at::Tensor logits =
          torch::linear(unit, parameters["head.weight"], parameters["head.bias"]);
      CHECK(value(classification_loss(n.mae, head, {images, labels}).loss) ==
            Approx(value(torch::cross_entropy_loss(logits, labels))).epsilon(1e-10));
    }
}
