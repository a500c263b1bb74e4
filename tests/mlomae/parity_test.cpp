// The authors' model and Betty's hypergradient of it, from parity.safetensors (make_parity.py).
#include "support.h"

#include "catch.h"

using namespace mlomae;

namespace {

const mlo::Safetensors& fixture() {
  static const mlo::Safetensors content =
      mlo::read_safetensors(MLO_TEST_DATA "/parity.safetensors");
  return content;
}

Networks networks() {
  ModelOptions o;
  o.image_size = 12, o.patch = 4, o.dim = 16, o.depth = 2, o.heads = 2, o.decoder_dim = 8,
  o.decoder_depth = 1, o.decoder_heads = 2;
  o.learned_positions = true;
  Networks n(o, 12, 3);
  const at::NoGradGuard no_grad;
  const auto load = [](torch::nn::Module& module, const std::string& prefix) {
    for (const auto& item : module.named_parameters())
      item.value().copy_(fixture().at(prefix + item.key()));
  };
  load(*n.mae, "mae/");
  load(*n.masker, "masker/");
  load(*n.head, "head/");
  return n;
}

mlo::Batch batch(const std::string& level, int64_t i) {
  const std::string prefix = "batch/" + level + "/" + std::to_string(i) + "/";
  return mlo::Batch({fixture().at(prefix + "images"), fixture().at(prefix + "labels")});
}

ReconstructOptions as_authors() {
  return {.masking = {.ratio = 0.5,
                      .selects = Selects::rank,
                      .weighs = Weighs::probability,
                      .input = MaskInput::coupled}};
}

double gap(const at::Tensor& a, const std::string& name) {
  const at::Tensor& b = fixture().at(name);
  REQUIRE(a.sizes() == b.sizes());
  return (a - b).abs().max().item<double>();
}

}  // namespace

TEST_CASE("Embedding, mask, encoder, decoder and losses are the authors'", "[mlomae][parity]") {
  Networks n = networks();
  const at::Tensor images = batch("pretrain", 0)[0];
  const at::Tensor embedded = n.mae->embed(images);
  CHECK(gap(embedded, "embedded") < 1e-12);
  const Masking masking = choose_mask({embedded, {}, {}}, n.masker, as_authors().masking);
  CHECK(gap(masking.logits.sigmoid(), "probability") < 1e-12);
  CHECK(gap(masking.mask.masked.to(at::kDouble), "mask") == 0.0);
  CHECK(gap(n.mae->decode(n.mae->encode(embedded, masking.mask), masking.mask), "prediction") <
        1e-12);
  CHECK((n.mae->features(images) - fixture().at("latent").select(1, 0)).abs().max().item<double>() <
        1e-12);
}

TEST_CASE("Every gradient of both losses is the authors'", "[mlomae][parity]") {
  Networks n = networks();
  const auto compare = [](const mlo::Evaluation& evaluation, const std::string& loss,
                          const std::string& prefix,
                          const std::vector<std::pair<std::string, torch::nn::Module*>>& modules) {
    CHECK(gap(evaluation.loss, loss) < 1e-12);
    std::vector<std::string> names;
    mlo::Tensors parameters;
    for (const auto& [name, module] : modules)
      for (const auto& item : module->named_parameters())
        names.push_back(prefix + name + "/" + item.key()), parameters.push_back(item.value());
    const mlo::Tensors gradients = torch::autograd::grad({evaluation.loss}, parameters, {}, false,
                                                         false, /*allow_unused=*/true);
    int compared = 0;
    for (std::size_t i = 0; i < names.size(); ++i) {
      INFO(names[i]);
      const bool known = std::any_of(fixture().tensors.begin(), fixture().tensors.end(),
                                     [&](const auto& t) { return t.first == names[i]; });
      REQUIRE(known == gradients[i].defined());
      if (!known) continue;
      CHECK(gap(gradients[i], names[i]) < 1e-10);
      ++compared;
    }
    return compared;
  };
  CHECK(compare(reconstruction_loss(n.mae, n.masker, as_authors(), batch("pretrain", 0)[0]), "loss",
                "gradient/reconstruction/",
                {{"mae", n.mae.ptr().get()}, {"masker", n.masker.ptr().get()}}) > 40);
  CHECK(compare(classification_loss(n.mae, n.head, batch("pretrain", 0)), "classification",
                "gradient/classification/",
                {{"mae", n.mae.ptr().get()}, {"head", n.head.ptr().get()}}) > 30);
}

namespace {

mlo::Tensors hypergradient(std::unique_ptr<mlo::Method> reconstruct,
                           std::unique_ptr<mlo::Method> classify,
                           const ReconstructOptions& options) {
  Networks n = networks();
  mlo::Engine engine;
  engine.add("pretrain", Reconstruct(n.mae, n.masker, options),
             {.optimizer = mlo::adamw(
                  {.lr = 1e-3, .beta2 = 0.95, .weight_decay = 1e-3, .decay_vectors = false}),
              .data = [](int64_t i) { return batch("pretrain", i % 2); },
              .unroll = 2,
              .best_response = std::move(reconstruct)});
  engine.add("head", Classify(n.head, n.mae),
             {.optimizer = mlo::adamw({.lr = 1e-2, .beta2 = 0.95}),
              .data = [](int64_t) { return batch("head", 0); },
              .best_response = std::move(classify)});
  engine.add(
      "masker", Validate(n.masker, n.mae, n.head),
      {.optimizer = mlo::adamw({.lr = 1e-3}), .data = [](int64_t) { return batch("masker", 0); }});
  return engine.hypergradient("masker");
}

mlo::Tensors bettys() {
  mlo::Tensors all;
  const Networks n = networks();
  for (const auto& item : n.masker->named_parameters())
    all.push_back(fixture().at("hypergradient/" + item.key()));
  return all;
}

std::unique_ptr<mlo::Method> exact_bettys() {
  return mlo::implicit(mlo::exact_oracle(),
                       mlo::identity_solver({.scale = mlo::IdentityOptions::Scale::one}),
                       mlo::EvaluationPoint::after_step);
}

}  // namespace

TEST_CASE("The reference preset's hypergradient is Betty's, to the accuracy of its differences",
          "[mlomae][parity]") {
  const mlo::Tensors betty = bettys(),
                     ours = hypergradient(mlo::betty(), mlo::betty(), as_authors());
  const mlo::Tensors exact = hypergradient(exact_bettys(), exact_bettys(), as_authors());
  // Betty takes differences for each path, we for their sum: both have an error, which the exact
  // product shows.
  const double theirs_off = relative(betty, exact), ours_off = relative(ours, exact),
               apart = relative(ours, betty);
  INFO("Betty's differences are off by " << theirs_off << ", ours by " << ours_off
                                         << ", they are apart by " << apart);
  CHECK(theirs_off < 0.05);
  CHECK(apart < 1.5 * (theirs_off + ours_off));
  CHECK(cosine(ours, betty) > 0.999);
  // What must not pass for the same: T's input held, the paper's scale, a head that does not
  // respond.
  ReconstructOptions held = as_authors();
  held.masking.input = MaskInput::held;
  CHECK(relative(hypergradient(mlo::betty(), mlo::betty(), held), betty) > 0.1);
  CHECK(relative(hypergradient(mlo::darts(), mlo::darts(), as_authors()), betty) > 0.1);
}
