// Weights out and in: timm's names and features, the official MAE's reconstruction, other grids,
// foreign files.
#include "mlomae/models/weights.h"

#include "io/files.h"
#include "support.h"

#include <limits>
#include <set>

#include "catch.h"

using namespace mlomae;

namespace {

ModelOptions small(int64_t image_size = 12) {
  ModelOptions o;
  o.image_size = image_size, o.patch = 4, o.dim = 16, o.depth = 2, o.heads = 2, o.decoder_dim = 8,
  o.decoder_depth = 1, o.decoder_heads = 2;
  return o;
}

const mlo::Safetensors& timm() {
  static const mlo::Safetensors content = mlo::read_safetensors(MLO_TEST_DATA "/timm.safetensors");
  return content;
}

mlo::Safetensors with_prefix(const mlo::Safetensors& content, const std::string& prefix,
                             at::ScalarType type = at::kFloat) {
  mlo::Safetensors part;
  for (const auto& [name, tensor] : content.tensors)
    if (name.starts_with(prefix))
      part.tensors.emplace_back(name.substr(prefix.size()), tensor.to(type));
  return part;
}

double gap(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

}  // namespace

TEST_CASE("timm's encoder and ours are the same function, and files go both ways",
          "[mlomae][weights]") {
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
  const mlo::Safetensors ours = mlo::read_safetensors(folder / "ours.safetensors"),
                         theirs = with_prefix(timm(), "weights/");
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
  CHECK(gap(mae->reconstruct(images, Mask::from_order(order, 4)),
            parity.at("prediction").to(at::kFloat)) < 1e-5);

  export_model(folder / "ours.safetensors", mae);
  const mlo::Safetensors ours = mlo::read_safetensors(folder / "ours.safetensors"),
                         theirs = with_prefix(parity, "mae/");
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

TEST_CASE("Weights of another model are refused with a list, and nothing is changed",
          "[mlomae][weights]") {
  const TemporaryFolder folder;
  mlo::Safetensors content = with_prefix(timm(), "weights/");
  content.tensors.emplace_back("head.weight",
                               torch::zeros({10, 16}));  // a classifier's: not looked at
  mlo::write_safetensors(folder / "a.safetensors", content);
  MaskedAutoencoder mae(small());
  CHECK_NOTHROW(import_weights(folder / "a.safetensors", mae));
  const at::Tensor before = mae->named_parameters()["blocks.0.attn.qkv.weight"].clone();

  ModelOptions other = small();
  other.dim = 24;
  MaskedAutoencoder wide(other);
  CHECK_THROWS_WITH(import_weights(folder / "a.safetensors", wide),
                    Contains("a.safetensors") && Contains("of another shape") &&
                        Contains("blocks.0.attn.qkv.weight"));
  content.tensors.emplace_back("blocks.7.extra", torch::zeros({2}));
  content.tensors.erase(content.tensors.begin());
  content.tensors[3].second = content.tensors[3].second * 2;
  mlo::write_safetensors(folder / "b.safetensors", content);
  CHECK_THROWS_WITH(import_weights(folder / "b.safetensors", mae),
                    Contains("missing") && Contains("not known: 'blocks.7.extra'"));
  CHECK(at::equal(mae->named_parameters()["blocks.0.attn.qkv.weight"], before));
  CHECK_THROWS_WITH(import_weights(folder / "c.pth", mae), Contains("convert it"));
  mlo::write_safetensors(folder / "d.safetensors", {.tensors = {{"x", torch::zeros({2})}}});
  CHECK_THROWS_AS(model_options_of(folder / "d.safetensors"), mlo::Error);
}

namespace {

// Of the official naming, of a width, with as many blocks; nothing of it is right but names and
// shapes.
mlo::Safetensors foreign(int64_t dim, int64_t blocks = 2, int64_t decoder_dim = 0) {
  mlo::Safetensors content;
  const auto add = [&](const std::string& name, at::IntArrayRef shape) {
    content.tensors.emplace_back(name, torch::zeros(shape));
  };
  add("patch_embed.proj.weight", {dim, 3, 14, 14});
  add("pos_embed", {1, 1 + 16, dim});
  for (int64_t i = 0; i < blocks; ++i)
    add("blocks." + std::to_string(i) + ".mlp.fc1.weight", {4 * dim, 1});
  if (decoder_dim > 0) {
    add("decoder_embed.weight", {decoder_dim, 1});
    add("decoder_blocks.0.norm1.weight", {decoder_dim});
  }
  return content;
}

}  // namespace

TEST_CASE("Heads are those that published models of a width have, and said; others must be given",
          "[mlomae][weights]") {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder / "w.safetensors";
  for (const auto& [dim, heads] : std::vector<std::pair<int64_t, int64_t>>{
           {192, 3}, {384, 6}, {768, 12}, {1024, 16}, {1280, 16}}) {
    mlo::write_safetensors(file, foreign(dim, 2, 512));
    std::vector<std::string> assumed;
    const ModelOptions o = model_options_of(
        file, {.assumed = [&](const std::string& text) { assumed.push_back(text); }});
    CHECK(o.heads == heads);
    CHECK(o.decoder_heads == 16);
    REQUIRE(assumed.size() == 2);
    CHECK_THAT(assumed[0], Contains("model.heads = " + std::to_string(heads)) &&
                               Contains("width " + std::to_string(dim)));
    CHECK(model_options_of(file, {.heads = 4, .decoder_heads = 8}).heads == 4);
  }
  mlo::write_safetensors(file, foreign(320));
  CHECK_THROWS_WITH(model_options_of(file), Contains("w.safetensors") && Contains("width of 320") &&
                                                Contains("--set model.heads=N"));
  CHECK(model_options_of(file, {.heads = 5}).heads == 5);
  mlo::write_safetensors(file, foreign(192, 2, 256));
  CHECK_THROWS_WITH(model_options_of(file), Contains("--set model.decoder_heads=N"));
}

TEST_CASE("Weights that are not finite are refused by the tensor's name, with the model as before",
          "[mlomae][weights]") {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder / "w.safetensors";
  MaskedAutoencoder mae(small()), other(small());
  const at::Tensor before = mae->named_parameters()["cls_token"].clone();
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()}) {
    {
      const at::NoGradGuard no_grad;
      other->named_parameters()["blocks.1.attn.qkv.weight"][3][5] = bad;
    }
    export_model(file, other);
    CHECK_THROWS_WITH(import_weights(file, mae), Contains("w.safetensors") &&
                                                     Contains("'blocks.1.attn.qkv.weight'") &&
                                                     Contains("not finite"));
    CHECK_THROWS_WITH(import_module(file, *mae), Contains("'blocks.1.attn.qkv.weight'"));
    CHECK(at::equal(mae->named_parameters()["cls_token"], before));
  }
}

TEST_CASE("Weights that are no real numbers are refused by the tensor's name",
          "[mlomae][weights]") {
  const TemporaryFolder folder;
  MaskedAutoencoder mae(small());
  const at::Tensor before = mae->named_parameters()["cls_token"].clone();
  mlo::Safetensors content = with_prefix(timm(), "weights/");
  for (const at::ScalarType type : {at::kInt, at::kChar, at::kBool}) {
    for (auto& [name, tensor] : content.tensors)
      if (name == "blocks.1.mlp.fc2.bias" || name == "pos_embed") tensor = tensor.to(type);
    mlo::write_safetensors(folder / "w.safetensors", content);
    CHECK_THROWS_WITH(
        import_weights(folder / "w.safetensors", mae),
        Contains("w.safetensors: tensor 'pos_embed' is of type") && Contains(c10::toString(type)));
    CHECK(at::equal(mae->named_parameters()["cls_token"], before));
  }
  content = with_prefix(timm(), "weights/", at::kHalf);
  mlo::write_safetensors(folder / "w.safetensors", content);
  CHECK_NOTHROW(import_weights(folder / "w.safetensors", mae));
}

TEST_CASE("Names that are odd get an answer", "[mlomae][weights]") {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder / "w.safetensors";
  // DistributedDataParallel's prefix is left out; another one is named.
  mlo::Safetensors content = with_prefix(timm(), "weights/");
  for (auto& [name, tensor] : content.tensors) name = "module." + name;
  mlo::write_safetensors(file, content);
  MaskedAutoencoder mae(small());
  CHECK_NOTHROW(import_weights(file, mae));
  mae->eval();
  CHECK(gap(mae->tokens(timm().at("images")), timm().at("tokens")) < 1e-5);
  CHECK(model_options_of(file, {.heads = 2}).depth == 2);
  for (auto& [name, tensor] : content.tensors) name = "backbone." + name;
  mlo::write_safetensors(file, content);
  CHECK_THROWS_WITH(model_options_of(file), Contains("'backbone.module.patch_embed.proj.weight'"));

  content = foreign(192);
  content.tensors.emplace_back("blocks.x.weight", torch::zeros({1}));
  content.tensors.emplace_back("blocks.", torch::zeros({1}));
  mlo::write_safetensors(file, content);
  CHECK(model_options_of(file).depth == 2);
  for (const std::string odd :
       {"blocks.99999999999999999999.weight", "blocks.1000000000.weight", "blocks.-1.weight"}) {
    content = foreign(192);
    content.tensors.emplace_back(odd, torch::zeros({1}));
    mlo::write_safetensors(file, content);
    CHECK_THROWS_WITH(model_options_of(file),
                      Contains("w.safetensors") && Contains("'" + odd + "'"));
  }
}

TEST_CASE("Metadata that is not true of the tensors builds no model", "[mlomae][weights]") {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder / "w.safetensors";
  export_model(file, MaskedAutoencoder(small()));
  const mlo::Safetensors right = mlo::read_safetensors(file);
  const auto with = [&](const std::string& from, const std::string& to) {
    mlo::Safetensors content = right;
    std::string& text = content.metadata["mlomae"];
    REQUIRE(text.find(from) != std::string::npos);
    text.replace(text.find(from), from.size(), to);
    mlo::write_safetensors(file, content);
  };
  with("\"depth\":2", "\"depth\":1000000000");
  CHECK_THROWS_WITH(model_options_of(file), Contains("depth = 1000000000") && Contains("at most"));
  with("\"depth\":2", "\"depth\":3");
  CHECK_THROWS_WITH(model_options_of(file),
                    Contains("w.safetensors") && Contains("depth = 3") && Contains("2"));
  with("\"depth\":2", "\"depth\":\"2\"");
  CHECK_THROWS_WITH(model_options_of(file),
                    Contains("w.safetensors") && Contains("depth is missing or of another type"));
  with("\"depth\":2", "\"depth\":2" + std::string(200, '['));
  CHECK_THROWS_WITH(model_options_of(file), Contains("w.safetensors") && Contains("not JSON"));
  ModelOptions deep = small();
  deep.decoder_depth = 1000000000;
  CHECK_THROWS_WITH(deep.validate(), Contains("decoder_depth"));
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
