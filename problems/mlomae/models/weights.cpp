#include "mlomae/models/weights.h"

#include <mlo/error.h>
#include <mlo/io/safetensors.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

namespace mlomae {
namespace {

using Json = nlohmann::json;

bool of_decoder(const std::string& name) { return name.starts_with("decoder") || name == "mask_token"; }
// Of a classifier on top, which is no part of the model.
bool of_head(const std::string& name) { return name.starts_with("head.") || name.starts_with("fc_norm."); }

// Integers of ModelOptions that a file's metadata keeps.
void each_field(ModelOptions& o, const std::function<void(const char*, int64_t&)>& use) {
  use("image_size", o.image_size), use("channels", o.channels), use("patch", o.patch);
  use("dim", o.dim), use("depth", o.depth), use("heads", o.heads);
  use("decoder_dim", o.decoder_dim), use("decoder_depth", o.decoder_depth), use("decoder_heads", o.decoder_heads);
}

std::map<std::string, std::string> metadata(ModelOptions options) {
  Json json = Json::object();
  each_field(options, [&](const char* name, int64_t& value) { json[name] = value; });
  json["mlp_ratio"] = options.mlp_ratio;
  json["normalize_targets"] = options.normalize_targets;
  json["learned_positions"] = options.learned_positions;
  return {{"format", "pt"}, {"mlomae", json.dump()}};
}

mlo::Safetensors read(const std::filesystem::path& file) {
  if (const std::string e = file.extension().string(); e == ".pth" || e == ".pt")
    throw mlo::Error(
        file.string() +
        " is a pickle, which may run code; convert it to safetensors:  python3 -c \"import torch, safetensors.torch as s; "
        "s.save_file({k: v.contiguous() for k, v in torch.load('" +
        file.string() + "', weights_only=False)['model'].items()}, 'model.safetensors')\"");
  return mlo::read_safetensors(file);
}

// [1, 1 + n, dim] → [1, 1 + side², dim], as DeiT and timm do it.
at::Tensor interpolated(const at::Tensor& positions, int64_t side) {
  const int64_t from = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(positions.size(1) - 1)))),
                dim = positions.size(2);
  if (from * from != positions.size(1) - 1 || from == side) return positions;
  const at::Tensor grid = positions.narrow(1, 1, from * from).view({1, from, from, dim}).permute({0, 3, 1, 2});
  const at::Tensor other = at::upsample_bicubic2d(grid.to(at::kFloat), {side, side}, /*align_corners=*/false);
  return at::cat({positions.narrow(1, 0, 1).to(at::kFloat), other.permute({0, 2, 3, 1}).reshape({1, side * side, dim})}, 1);
}

struct Differences {
  std::string missing, unknown, shapes;
  static void add(std::string& list, const std::string& what) { list += (list.empty() ? "" : ", ") + what; }
  void check(const std::filesystem::path& file) const {
    if (missing.empty() && unknown.empty() && shapes.empty()) return;
    throw mlo::Error(file.string() + ": these are weights of another model" + (missing.empty() ? "" : "; missing: " + missing) +
                     (unknown.empty() ? "" : "; not known: " + unknown) +
                     (shapes.empty() ? "" : "; of another shape: " + shapes) +
                     ". Choose the settings model.* that the weights were made with");
  }
};

// Assigns what `tensors` holds; `adapt` may change a tensor before its shape is compared, `optional` names may be missing.
void assign(const std::filesystem::path& file, const mlo::Safetensors& content, torch::nn::Module& module,
            const std::function<at::Tensor(const std::string&, const at::Tensor&)>& adapt,
            const std::function<bool(const std::string&)>& optional) {
  Differences differences;
  std::map<std::string, at::Tensor> given(content.tensors.begin(), content.tensors.end());
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;
  for (const auto& item : module.named_parameters()) {
    const auto found = given.find(item.key());
    if (found == given.end()) {
      if (!optional(item.key())) Differences::add(differences.missing, item.key());
      continue;
    }
    const at::Tensor value = adapt(item.key(), found->second);
    if (value.sizes() == item.value().sizes())
      copies.emplace_back(item.value(), value);
    else
      Differences::add(differences.shapes,
                       item.key() + " " + c10::str(value.sizes()) + " instead of " + c10::str(item.value().sizes()));
    given.erase(found);
  }
  for (const auto& [name, tensor] : given)
    if (!of_head(name)) Differences::add(differences.unknown, name);
  differences.check(file);
  const at::NoGradGuard no_grad;
  for (const auto& [to, from] : copies) to.copy_(from);
}

}  // namespace

void export_model(const std::filesystem::path& file, MaskedAutoencoder mae) {
  mlo::Safetensors content{.tensors = {}, .metadata = metadata(mae->options())};
  for (const auto& item : mae->named_parameters()) content.tensors.emplace_back(item.key(), item.value());
  mlo::write_safetensors(file, content);
}

void export_encoder(const std::filesystem::path& file, MaskedAutoencoder mae) {
  mlo::Safetensors content{.tensors = {}, .metadata = metadata(mae->options())};
  for (const auto& item : mae->named_parameters())
    if (!of_decoder(item.key())) content.tensors.emplace_back(item.key(), item.value());
  mlo::write_safetensors(file, content);
}

ModelOptions model_options_of(const std::filesystem::path& file, ModelOptions rest) {
  const mlo::Safetensors content = read(file);
  ModelOptions o = rest;
  if (const auto ours = content.metadata.find("mlomae"); ours != content.metadata.end()) {
    const Json json = Json::parse(ours->second, nullptr, /*allow_exceptions=*/false);
    if (json.is_object()) {
      each_field(o, [&](const char* name, int64_t& value) { value = json.value(name, value); });
      o.mlp_ratio = json.value("mlp_ratio", o.mlp_ratio);
      o.normalize_targets = json.value("normalize_targets", o.normalize_targets);
      o.learned_positions = json.value("learned_positions", o.learned_positions);
      o.validate();
      return o;
    }
  }
  const auto shape_error = [&] {
    return mlo::Error(file.string() + ": no weights of a vision transformer in the official MAE naming");
  };
  const auto depth_of = [&](const std::string& prefix) {
    int64_t depth = 0;
    for (const auto& [name, tensor] : content.tensors)
      if (name.starts_with(prefix)) depth = std::max<int64_t>(depth, std::stoll(name.substr(prefix.size())) + 1);
    return depth;
  };
  const at::Tensor &projection = content.at("patch_embed.proj.weight"), &positions = content.at("pos_embed");
  if (projection.dim() != 4 || positions.dim() != 3) throw shape_error();
  o.dim = projection.size(0);
  o.channels = projection.size(1);
  o.patch = projection.size(2);
  const auto side = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(positions.size(1) - 1))));
  o.image_size = side * o.patch;
  o.depth = depth_of("blocks.");
  o.heads = std::max<int64_t>(1, o.dim / 64);
  o.mlp_ratio = static_cast<double>(content.at("blocks.0.mlp.fc1.weight").size(0)) / static_cast<double>(o.dim);
  if (depth_of("decoder_blocks.") > 0) {
    o.decoder_dim = content.at("decoder_embed.weight").size(0);
    o.decoder_depth = depth_of("decoder_blocks.");
    o.decoder_heads = 16;
  }
  o.validate();
  return o;
}

void import_weights(const std::filesystem::path& file, MaskedAutoencoder mae) {
  const mlo::Safetensors content = read(file);
  const bool decoder =
      std::any_of(content.tensors.begin(), content.tensors.end(), [](const auto& t) { return of_decoder(t.first); });
  assign(
      file, content, *mae,
      [&](const std::string& name, const at::Tensor& tensor) {
        const bool positions = (name == "pos_embed" || name == "decoder_pos_embed") && tensor.dim() == 3 && tensor.size(1) > 1;
        return positions ? interpolated(tensor, mae->options().side()) : tensor;
      },
      [&](const std::string& name) { return !decoder && of_decoder(name); });
}

void export_module(const std::filesystem::path& file, const torch::nn::Module& module) {
  mlo::Safetensors content;
  for (const auto& item : module.named_parameters()) content.tensors.emplace_back(item.key(), item.value());
  mlo::write_safetensors(file, content);
}

void import_module(const std::filesystem::path& file, torch::nn::Module& module) {
  assign(
      file, mlo::read_safetensors(file), module, [](const std::string&, const at::Tensor& t) { return t; },
      [](const std::string&) { return false; });
}

}  // namespace mlomae
