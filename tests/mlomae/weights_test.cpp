// Weights out and in: timm's names and features, the official MAE's reconstruction, other grids, foreign files.
#include "mlomae/models/weights.h"

#include "io/files.h"
#include "support.h"

#include <set>

#include "catch.h"

using namespace mlomae;

namespace {

ModelOptions small(int64_t image_size = 12) {
  ModelOptions o;
  o.image_size = image_size, o.patch = 4, o.dim = 16, o.depth = 2, o.heads = 2, o.decoder_dim = 8, o.decoder_depth = 1,
  o.decoder_heads = 2;
  return o;
}

const mlo::Safetensors& timm() {
  static const mlo::Safetensors content = mlo::read_safetensors(MLO_TEST_DATA "/timm.safetensors");
  return content;
}

mlo::Safetensors with_prefix(const mlo::Safetensors& content, const std::string& prefix, at::ScalarType type = at::kFloat) {
  mlo::Safetensors part;
  for (const auto& [name, tensor] : content.tensors)
    if (name.starts_with(prefix)) part.tensors.emplace_back(name.substr(prefix.size()), tensor.to(type));
  return part;
}

double gap(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

}  // namespace

TEST_CASE("timm's encoder and ours are the same function, and files go both ways", "[mlomae][weights]") {
  const TemporaryFolder folder;
  mlo::write_safetensors(folder / "timm.safetensors", with_prefix(timm(), "weights/"));
  MaskedAutoencoder mae(small());
  mae->eval();
  CHECK(gap(mae->tokens(timm().at("images")), timm().at("tokens")) > 0.1);
  import_weights(folder / "timm.safetensors", mae);
  CHECK(gap(mae->tokens(timm().at("images")), timm().at("tokens")) < 1e-5);
  CHECK(gap(mae->features(timm().at("images")), timm().at("tokens").select(1, 0)) < 1e-5);

  // What we export has timm's names, shapes and values, no more and no less.
  export_encoder(folder / "ours.safetensors", mae);
  const mlo::Safetensors ours = mlo::read_safetensors(folder / "ours.safetensors"), theirs = with_prefix(timm(), "weights/");
  CHECK(ours.tensors.size() == theirs.tensors.size());
  for (const auto& [name, tensor] : theirs.tensors) CHECK(at::equal(ours.at(name), tensor));
}

TEST_CASE("Weights in the official MAE naming give the same reconstruction", "[mlomae][weights]") {
  const mlo::Safetensors parity = mlo::read_safetensors(MLO_TEST_DATA "/parity.safetensors");
  const TemporaryFolder folder;
  mlo::write_safetensors(folder / "mae.safetensors", with_prefix(parity, "mae/"));
  MaskedAutoencoder mae(small());
  import_weights(folder / "mae.safetensors", mae);
  const at::Tensor images = parity.at("batch/pretrain/0/images").to(at::kFloat);
  const at::Tensor order = parity.at("probability").argsort(/*stable=*/true, 1, false);
  CHECK(gap(mae->reconstruct(images, Mask::from_order(order, 4)), parity.at("prediction").to(at::kFloat)) < 1e-5);

  export_model(folder / "ours.safetensors", mae);
  const mlo::Safetensors ours = mlo::read_safetensors(folder / "ours.safetensors"), theirs = with_prefix(parity, "mae/");
  REQUIRE(ours.tensors.size() == theirs.tensors.size());
  for (const auto& [name, tensor] : theirs.tensors) CHECK(at::equal(ours.at(name), tensor));
  const ModelOptions found = model_options_of(folder / "ours.safetensors");
  CHECK(found.image_size == 12);
  CHECK(found.heads == 2);
  CHECK(found.decoder_dim == 8);
}

TEST_CASE("Positions of another grid are interpolated", "[mlomae][weights]") {
  const TemporaryFolder folder;
  mlo::write_safetensors(folder / "timm.safetensors", with_prefix(timm(), "weights/"));
  MaskedAutoencoder larger(small(20));
  import_weights(folder / "timm.safetensors", larger);
  CHECK(gap(larger->named_parameters()["pos_embed"], timm().at("positions_5x5")) < 1e-6);
}

TEST_CASE("Weights of another model are refused with a list, and nothing is changed", "[mlomae][weights]") {
  const TemporaryFolder folder;
  mlo::Safetensors content = with_prefix(timm(), "weights/");
  content.tensors.emplace_back("head.weight", torch::zeros({10, 16}));  // a classifier's: not looked at
  mlo::write_safetensors(folder / "a.safetensors", content);
  MaskedAutoencoder mae(small());
  CHECK_NOTHROW(import_weights(folder / "a.safetensors", mae));
  const at::Tensor before = mae->named_parameters()["blocks.0.attn.qkv.weight"].clone();

  ModelOptions other = small();
  other.dim = 24;
  MaskedAutoencoder wide(other);
  CHECK_THROWS_WITH(import_weights(folder / "a.safetensors", wide),
                    Contains("a.safetensors") && Contains("of another shape") && Contains("blocks.0.attn.qkv.weight"));
  content.tensors.emplace_back("blocks.7.extra", torch::zeros({2}));
  content.tensors.erase(content.tensors.begin());
  content.tensors[3].second = content.tensors[3].second * 2;
  mlo::write_safetensors(folder / "b.safetensors", content);
  CHECK_THROWS_WITH(import_weights(folder / "b.safetensors", mae), Contains("missing") && Contains("not known: blocks.7.extra"));
  CHECK(at::equal(mae->named_parameters()["blocks.0.attn.qkv.weight"], before));
  CHECK_THROWS_WITH(import_weights(folder / "c.pth", mae), Contains("convert it"));
  mlo::write_safetensors(folder / "d.safetensors", {.tensors = {{"x", torch::zeros({2})}}});
  CHECK_THROWS_AS(model_options_of(folder / "d.safetensors"), mlo::Error);
}

TEST_CASE("Recomputed blocks are the same blocks", "[mlomae][models]") {
  ModelOptions plain = small(), recomputed = small();
  recomputed.checkpoint_activations = true;
  torch::manual_seed(1);
  MaskedAutoencoder a(plain);
  torch::manual_seed(1);
  MaskedAutoencoder b(recomputed);
  const at::Tensor images = torch::randn({2, 3, 12, 12});
  const at::Tensor x = a->features(images).square().sum(), y = b->features(images).square().sum();
  CHECK(at::equal(x, y));
  x.backward();
  y.backward();
  int compared = 0;
  for (const auto& item : a->named_parameters()) {
    if (!item.value().grad().defined()) continue;
    CHECK(at::allclose(item.value().grad(), b->named_parameters()[item.key()].grad(), 1e-5, 1e-6));
    ++compared;
  }
  CHECK(compared > 20);
}
