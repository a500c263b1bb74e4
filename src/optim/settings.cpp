#include "precompiled.h"

#include "optim/settings.h"

#include "optim/fused.h"
#include "text.h"

#include <c10/util/Type.h>
#include <fmt/format.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>

#include <sstream>
#include <typeinfo>

namespace mlo::detail {
namespace {

std::string text_of(const c10::IValue& value) {
  if (value.isDouble()) return message("{}", value.toDouble());
  if (value.isBool()) return value.toBool() ? "true" : "false";
  if (value.isTuple()) {
    std::vector<std::string> texts;
    for (const c10::IValue& element : value.toTupleRef().elements())
      texts.push_back(text_of(element));
    return message("({})", fmt::join(texts, ", "));
  }
  std::ostringstream text;
  text << value;
  return text.str();
}

// By name. LibTorch shows the options of a class it does not know only through what they write to
// an archive.
std::map<std::string, std::string> written(const torch::optim::OptimizerOptions& options) {
  std::map<std::string, std::string> texts;
  try {
    torch::serialize::OutputArchive out;
    options.serialize(out);
    std::stringstream bytes;
    out.save_to(bytes);
    torch::serialize::InputArchive in;
    in.load_from(bytes);
    for (const std::string& name : in.keys()) {
      c10::IValue value;
      if (in.try_read(name, value)) texts[name] = text_of(value);
    }
  } catch (const c10::Error&) {
    texts = {{"lr", message("{}", options.get_lr())}};
  }
  return texts;
}

}  // namespace

std::string class_name(const torch::optim::Optimizer& optimizer) {
  if (typeid(optimizer) == typeid(FusedSgd)) return "torch::optim::SGD";
  if (typeid(optimizer) == typeid(FusedAdam)) return "torch::optim::Adam";
  if (typeid(optimizer) == typeid(FusedAdamW)) return "torch::optim::AdamW";
  return c10::demangle(typeid(optimizer).name());
}

std::map<std::string, std::string> settings_of(const torch::optim::Optimizer& optimizer) {
  std::map<std::string, std::string> all = {{"", class_name(optimizer)}};
  std::map<std::string, std::vector<std::string>> by_group;
  const auto& groups = optimizer.param_groups();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (auto& [name, text] : written(groups[g].options())) {
      by_group[name].resize(groups.size());
      by_group[name][g] = std::move(text);
    }
    by_group["groups"].push_back(message("{}", groups[g].params().size()));
  }
  for (const auto& [name, texts] : by_group) {
    const bool same = name != "groups" &&
                      std::count(texts.begin(), texts.end(), texts.front()) == std::ssize(texts);
    all["." + name] = same ? texts.front() : message("{}", fmt::join(texts, " | "));
  }
  return all;
}

}  // namespace mlo::detail
