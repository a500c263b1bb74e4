#include "mlomae/models/weights.h"

#include "mlomae/config/json_text.h"
#include "mlomae/message.h"

#include <ATen/ATen.h>
#include <mlo/io/safetensors.h>
#include <torch/nn/module.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <optional>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

bool of_decoder(const std::string& name) {
  return name.starts_with("decoder") || name == "mask_token";
}
// Of a classifier on top, which is no part of the model.
bool of_head(const std::string& name) {
  return name.starts_with("head.") || name.starts_with("fc_norm.");
}

// Integers of ModelOptions that a file's metadata keeps.
void each_field(ModelOptions& o, const std::function<void(const char*, int64_t&)>& use) {
  use("image_size", o.image_size), use("channels", o.channels), use("patch", o.patch);
  use("dim", o.dim), use("depth", o.depth), use("heads", o.heads);
  use("decoder_dim", o.decoder_dim), use("decoder_depth", o.decoder_depth),
      use("decoder_heads", o.decoder_heads);
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
    refuse<mlo::Error>(
        "{0} is a pickle, which may run code; convert it to safetensors:  python3 -c \"import "
        "torch, "
        "safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in torch.load('{0}', "
        "weights_only=False)['model'].items()}}, 'model.safetensors')\"",
        file.string());
  mlo::Safetensors content = mlo::read_safetensors(file);
  // What wrappers of a model put before its names.
  for (const std::string prefix : {"module.", "_orig_mod."}) {
    const auto has = [&](const auto& tensor) { return tensor.first.starts_with(prefix); };
    if (!content.tensors.empty() &&
        std::all_of(content.tensors.begin(), content.tensors.end(), has))
      for (auto& [name, tensor] : content.tensors) name.erase(0, prefix.size());
  }
  return content;
}

// Blocks of that prefix: one more than the largest number. Names without a number belong to none.
int64_t depth_of(const std::filesystem::path& file, const mlo::Safetensors& content,
                 const std::string& prefix) {
  int64_t depth = 0;
  for (const auto& [name, tensor] : content.tensors) {
    if (!name.starts_with(prefix)) continue;
    const char *begin = name.data() + prefix.size(), *end = name.data() + name.size();
    int64_t block = 0;
    const auto [rest, error] = std::from_chars(begin, end, block);
    if (error == std::errc::invalid_argument || rest == end || *rest != '.') continue;
    if (error != std::errc() || block < 0 || block >= static_cast<int64_t>(content.tensors.size()))
      refuse<mlo::Error>(
          "{}: '{}' is of no block that this file can hold; blocks are counted from 0",
          file.string(), name);
    depth = std::max(depth, block + 1);
  }
  return depth;
}

// [1, 1 + n, dim] → [1, 1 + side², dim], as DeiT and timm do it.
at::Tensor interpolated(const at::Tensor& positions, int64_t side) {
  const int64_t from = static_cast<int64_t>(
                    std::llround(std::sqrt(static_cast<double>(positions.size(1) - 1)))),
                dim = positions.size(2);
  if (from * from != positions.size(1) - 1 || from == side) return positions;
  const at::Tensor grid =
      positions.narrow(1, 1, from * from).view({1, from, from, dim}).permute({0, 3, 1, 2});
  const at::Tensor other =
      at::upsample_bicubic2d(grid.to(at::kFloat), {side, side}, /*align_corners=*/false);
  return at::cat({positions.narrow(1, 0, 1).to(at::kFloat),
                  other.permute({0, 2, 3, 1}).reshape({1, side * side, dim})},
                 1);
}

struct Differences {
  std::vector<std::string> missing, unknown, shapes;
  void check(const std::filesystem::path& file) const {
    if (missing.empty() && unknown.empty() && shapes.empty()) return;
    const auto part = [](const char* what, const std::vector<std::string>& list) {
      return list.empty() ? std::string() : message("; {}: {}", what, listed(list));
    };
    refuse<mlo::Error>(
        "{}: these are weights of another model{}{}{}. Choose the settings model.* that the "
        "weights "
        "were made with",
        file.string(), part("missing", missing), part("not known", unknown),
        part("of another shape", shapes));
  }
};

// Assigns what `tensors` holds; `adapt` may change a tensor before its shape is compared,
// `optional` names may be missing.
void assign(const std::filesystem::path& file, const mlo::Safetensors& content,
            torch::nn::Module& module,
            const std::function<at::Tensor(const std::string&, const at::Tensor&)>& adapt,
            const std::function<bool(const std::string&)>& optional) {
  Differences differences;
  std::map<std::string, at::Tensor> given(content.tensors.begin(), content.tensors.end());
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;
  for (const auto& item : module.named_parameters()) {
    const auto found = given.find(item.key());
    if (found == given.end()) {
      if (!optional(item.key())) differences.missing.push_back(item.key());
      continue;
    }
    if (!found->second.is_floating_point())
      refuse<mlo::Error>(
          "{}: tensor '{}' is of type {}, expected floating point; convert the weights back from "
          "what they were packed to",
          file.string(), item.key(), c10::toString(found->second.scalar_type()));
    const at::Tensor value = adapt(item.key(), found->second);
    if (!value.isfinite().all().item<bool>())
      refuse<mlo::Error>(
          "{}: tensor '{}' holds values that are not finite; such weights cannot be used: save "
          "them "
          "before training diverged",
          file.string(), item.key());
    if (value.sizes() == item.value().sizes())
      copies.emplace_back(item.value(), value);
    else
      differences.shapes.push_back(message("{} {} instead of {}", item.key(),
                                           shape_text(value.sizes().vec()),
                                           shape_text(item.value().sizes().vec())));
    given.erase(found);
  }
  for (const auto& [name, tensor] : given)
    if (!of_head(name)) differences.unknown.push_back(name);
  differences.check(file);
  const at::NoGradGuard no_grad;
  for (const auto& [to, from] : copies) to.copy_(from);
}

}  // namespace

void export_model(const std::filesystem::path& file, MaskedAutoencoder mae) {
  mlo::Safetensors content{.tensors = {}, .metadata = metadata(mae->options())};
  for (const auto& item : mae->named_parameters())
    content.tensors.emplace_back(item.key(), item.value());
  mlo::write_safetensors(file, content);
}

void export_encoder(const std::filesystem::path& file, MaskedAutoencoder mae) {
  mlo::Safetensors content{.tensors = {}, .metadata = metadata(mae->options())};
  for (const auto& item : mae->named_parameters())
    if (!of_decoder(item.key())) content.tensors.emplace_back(item.key(), item.value());
  mlo::write_safetensors(file, content);
}

namespace {

// By our metadata, which must be true of the tensors: a model of the size it says is made.
ModelOptions by_metadata(const std::filesystem::path& file, const std::string& text) {
  const Json json = parse_json(text, file.string() + ": metadata 'mlomae'");
  const auto of_type = [&](const char* name, bool right) {
    require<mlo::Error>(
        right, "{}: metadata 'mlomae': {} is missing or of another type; export the model again",
        file.string(), name);
  };
  of_type("an object", json.is_object());
  ModelOptions o;
  each_field(o, [&](const char* name, int64_t& value) {
    of_type(name, json.contains(name) && json[name].is_number_integer());
    value = json[name].get<int64_t>();
  });
  of_type("mlp_ratio", json.contains("mlp_ratio") && json["mlp_ratio"].is_number());
  o.mlp_ratio = json["mlp_ratio"].get<double>();
  const auto flag = [&](const char* name, bool& value) {
    of_type(name, json.contains(name) && json[name].is_boolean());
    value = json[name].get<bool>();
  };
  flag("normalize_targets", o.normalize_targets);
  flag("learned_positions", o.learned_positions);
  return o;
}

int64_t heads_of(const std::filesystem::path& file, const char* setting, int64_t given, int64_t dim,
                 std::optional<int64_t> known, const Unsaid& unsaid) {
  if (given > 0) return given;
  require<mlo::Error>(known.has_value(),
                      "{} does not say how many attention heads its width of {} has, and no "
                      "published model has that width; give it: --set {}=N",
                      file.string(), dim, setting);
  if (unsaid.assumed)
    unsaid.assumed(message(
        "{0} = {1}, as the published models of width {2} have; if these weights have another "
        "number, give it: --set {0}=N",
        setting, *known, dim));
  return *known;
}

// A tensor of so many dimensions.
const at::Tensor& tensor_of(const std::filesystem::path& file, const mlo::Safetensors& content,
                            const std::string& name, int64_t dims) {
  const auto found = std::find_if(content.tensors.begin(), content.tensors.end(),
                                  [&](const auto& t) { return t.first == name; });
  if (found == content.tensors.end()) {
    const auto longer = std::find_if(content.tensors.begin(), content.tensors.end(),
                                     [&](const auto& t) { return t.first.ends_with("." + name); });
    refuse<mlo::Error>(
        "{}: no weights of a vision transformer in the official MAE naming: there is no '{}'{}",
        file.string(), name,
        longer == content.tensors.end()
            ? ""
            : message(", but there is '{}'; save the tensors without what is before the name",
                      longer->first));
  }
  const at::Tensor& tensor = found->second;
  if (tensor.dim() != dims || tensor.numel() == 0)
    refuse<mlo::Error>(
        "{}: '{}' has the shape {}, expected {} dimensions; these are no weights of a vision "
        "transformer in the official MAE naming",
        file.string(), name, shape_text(tensor.sizes().vec()), dims);
  return tensor;
}

// What is needed of a file that says nothing of itself.
struct Shapes {
  const at::Tensor &projection, &positions;
  int64_t depth;
};

ModelOptions by_our_metadata(const std::filesystem::path& file, const std::string& text,
                             const Shapes& held) {
  const ModelOptions o = by_metadata(file, text);
  const auto agree = [&](const char* what, int64_t said, int64_t is) {
    require<mlo::Error>(said == is,
                        "{}: its metadata says {} = {}, its tensors {}; export the model again",
                        file.string(), what, said, is);
  };
  o.validate();
  agree("dim", o.dim, held.projection.size(0));
  agree("depth", o.depth, held.depth);
  agree("patch", o.patch, held.projection.size(2));
  agree("patches", o.patches(), held.positions.size(1) - 1);
  return o;
}

}  // namespace

ModelOptions model_options_of(const std::filesystem::path& file, const Unsaid& unsaid) {
  const mlo::Safetensors content = read(file);
  const auto tensor = [&](const char* name, int64_t dims) -> const at::Tensor& {
    return tensor_of(file, content, name, dims);
  };
  const Shapes held = {tensor("patch_embed.proj.weight", 4), tensor("pos_embed", 3),
                       depth_of(file, content, "blocks.")};
  if (const auto ours = content.metadata.find("mlomae"); ours != content.metadata.end())
    return by_our_metadata(file, ours->second, held);
  ModelOptions o;
  o.dim = held.projection.size(0);
  o.channels = held.projection.size(1);
  o.patch = held.projection.size(2);
  o.image_size = static_cast<int64_t>(
                     std::llround(std::sqrt(static_cast<double>(held.positions.size(1) - 1)))) *
                 o.patch;
  o.depth = held.depth;
  o.mlp_ratio = static_cast<double>(tensor("blocks.0.mlp.fc1.weight", 2).size(0)) /
                static_cast<double>(o.dim);
  o.heads = heads_of(file, "model.heads", unsaid.heads, o.dim, heads_of_width(o.dim), unsaid);
  if (const int64_t decoder_depth = depth_of(file, content, "decoder_blocks."); decoder_depth > 0) {
    o.decoder_dim = tensor("decoder_embed.weight", 2).size(0);
    o.decoder_depth = decoder_depth;
    // All published MAE have one decoder.
    o.decoder_heads =
        heads_of(file, "model.decoder_heads", unsaid.decoder_heads, o.decoder_dim,
                 o.decoder_dim == 512 ? std::optional<int64_t>(16) : std::nullopt, unsaid);
  }
  o.validate();
  return o;
}

void import_weights(const std::filesystem::path& file, MaskedAutoencoder mae) {
  const mlo::Safetensors content = read(file);
  const bool decoder = std::any_of(content.tensors.begin(), content.tensors.end(),
                                   [](const auto& t) { return of_decoder(t.first); });
  assign(
      file, content, *mae,
      [&](const std::string& name, const at::Tensor& tensor) {
        const bool positions = (name == "pos_embed" || name == "decoder_pos_embed") &&
                               tensor.dim() == 3 && tensor.size(1) > 1;
        return positions ? interpolated(tensor, mae->options().side()) : tensor;
      },
      [&](const std::string& name) { return !decoder && of_decoder(name); });
}

void export_module(const std::filesystem::path& file, const torch::nn::Module& module) {
  mlo::Safetensors content;
  for (const auto& item : module.named_parameters())
    content.tensors.emplace_back(item.key(), item.value());
  mlo::write_safetensors(file, content);
}

void import_module(const std::filesystem::path& file, torch::nn::Module& module) {
  assign(
      file, read(file), module, [](const std::string&, const at::Tensor& t) { return t; },
      [](const std::string&) { return false; });
}

}  // namespace mlomae
