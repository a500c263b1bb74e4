#include "mlomae/evaluation/classifier.h"

#include "mlomae/config/json_text.h"
#include "mlomae/message.h"
#include "mlomae/models/weights.h"

#include <mlo/io/safetensors.h>
#include <torch/types.h>
#include <nlohmann/json.hpp>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> classes_of(const std::filesystem::path& file,
                                    const mlo::Safetensors& content, int64_t outputs) {
  std::vector<std::string> classes;
  if (const auto found = content.metadata.find("classes"); found != content.metadata.end()) {
    const Json list = parse_json(found->second, file.string() + ": metadata 'classes'");
    if (list.is_array())
      for (const Json& name : list)
        classes.push_back(name.is_string() ? name.get<std::string>() : json_text(name));
  }
  require<mlo::Error>(static_cast<int64_t>(classes.size()) == outputs,
                      "{}: {} names of classes for {} outputs; evaluate again", file.string(),
                      classes.size(), outputs);
  return classes;
}

void check(const std::filesystem::path& file, const std::string& name, const at::Tensor& tensor,
           at::IntArrayRef shape) {
  if (tensor.sizes() != shape || tensor.scalar_type() != at::kFloat ||
      !tensor.isfinite().all().item<bool>())
    refuse<mlo::Error>("{}: tensor '{}' is not finite float32 of the shape {}; evaluate again",
                       file.string(), name, shape_text(shape.vec()));
}

}  // namespace

const LinearProbe& Probes::of(const std::string& feature) const {
  std::vector<std::string> there;
  for (const auto& [name, probe] : of_feature) {
    if (name == feature) return probe;
    there.push_back(name);
  }
  refuse("there is no probe of the feature '{}'; there are {}", feature, listed(there));
}

void write_probes(const std::filesystem::path& file, const Probes& probes) {
  mlo::Safetensors content{
      .tensors = {},
      .metadata = {{"classes", json_text(Json(probes.classes))}, {"encoder", probes.encoder}}};
  for (const auto& [feature, probe] : probes.of_feature) {
    content.tensors.emplace_back(feature + ".weights", probe.weights);
    content.tensors.emplace_back(feature + ".mean", probe.mean);
    content.tensors.emplace_back(feature + ".deviation", probe.deviation);
  }
  mlo::write_safetensors(file, content);
}

Probes read_probes(const std::filesystem::path& file) {
  const mlo::Safetensors content = mlo::read_safetensors(file);
  Probes probes;
  for (const std::string feature : {"class", "mean"}) {
    LinearProbe probe;
    probe.weights = content.at(feature + ".weights");
    probe.mean = content.at(feature + ".mean");
    probe.deviation = content.at(feature + ".deviation");
    if (probe.weights.dim() != 2 || probe.weights.size(0) < 2)
      refuse<mlo::Error>("{}: tensor '{}.weights' is no matrix of a probe; evaluate again",
                         file.string(), feature);
    const int64_t dim = probe.weights.size(0) - 1, outputs = probe.weights.size(1);
    check(file, feature + ".weights", probe.weights, {dim + 1, outputs});
    check(file, feature + ".mean", probe.mean, {dim});
    check(file, feature + ".deviation", probe.deviation, {dim});
    probes.classes = classes_of(file, content, outputs);
    probes.of_feature.emplace_back(feature, std::move(probe));
  }
  if (const auto found = content.metadata.find("encoder"); found != content.metadata.end())
    probes.encoder = found->second;
  return probes;
}

std::string checksum(MaskedAutoencoder mae) {
  // Sums of the bits, which order and rounding do not touch.
  uint64_t sum = 0;
  for (const auto& item : mae->named_parameters()) {
    if (item.key().starts_with("decoder") || item.key() == "mask_token") continue;
    const at::Tensor bits =
        item.value().detach().cpu().contiguous().view(at::kInt).to(at::kLong).flatten();
    const at::Tensor place = torch::arange(1, bits.numel() + 1, at::kLong);
    sum = sum * 1'000'003U + static_cast<uint64_t>((bits * place).sum().item<int64_t>());
  }
  return message("{:016x}", sum);
}

void write_classifier(const std::filesystem::path& file, MaskedAutoencoder mae, Head head,
                      const std::vector<std::string>& classes) {
  export_encoder(file, mae);
  mlo::Safetensors content = mlo::read_safetensors(file);
  for (const auto& item : head->named_parameters())
    content.tensors.emplace_back(item.key(), item.value());
  content.metadata["classes"] = json_text(Json(classes));
  mlo::write_safetensors(file, content);
}

Classifier read_classifier(const std::filesystem::path& file) {
  Classifier c;
  c.mae = MaskedAutoencoder(model_options_of(file));
  import_weights(file, c.mae);
  const mlo::Safetensors content = mlo::read_safetensors(file);
  const at::Tensor& weight = content.at("head.weight");
  require<mlo::Error>(weight.dim() == 2, "{}: tensor 'head.weight' is no matrix; fine-tune again",
                      file.string());
  c.classes = classes_of(file, content, weight.size(0));
  c.head =
      Head(HeadOptions{.dim = c.mae->options().dim, .classes = weight.size(0), .dropout = 0.0});
  const at::NoGradGuard no_grad;
  for (const auto& item : c.head->named_parameters()) {
    check(file, item.key(), content.at(item.key()), item.value().sizes());
    item.value().copy_(content.at(item.key()));
  }
  return c;
}

}  // namespace mlomae
