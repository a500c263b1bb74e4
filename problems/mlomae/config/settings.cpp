#include "mlomae/config/settings.h"

#include "mlomae/config/fields.h"
#include "mlomae/config/json_text.h"

#include <mlo/error.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

namespace mlomae {
namespace {

std::string number(int64_t value) { return std::to_string(value); }
using mlomae::number;

bool is_utf8(const std::string& text) {
  try {
    return !nlohmann::json(text).dump().empty();
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

constexpr int64_t kLongest = 4096;
constexpr double kLargest = std::numeric_limits<float>::max(),
                 kSmallest = std::numeric_limits<float>::min();

class Checks {
 public:
  explicit Checks(const Settings& settings) : copy_(settings), fields_(fields(copy_)) {}

  void choices() const {
    for (const Field& field : fields_) {
      if (field.choices.empty()) continue;
      const std::string& value = *std::get<std::string*>(field.value);
      if (std::find(field.choices.begin(), field.choices.end(), value) == field.choices.end())
        refuse(field.key, "'" + abridged(value) + "'", "one of those that `mlomae config` lists");
    }
  }
  // A run's settings are kept as JSON, which has neither; and LibTorch converts them to the type of
  // what is trained.
  void can_be_kept() const {
    for (const Field& field : fields_) {
      if (auto* real = std::get_if<double*>(&field.value)) {
        if (!std::isfinite(**real)) refuse(field.key, "a finite number");
        if (const double size = std::abs(**real);
            size != 0.0 && (size < kSmallest || size > kLargest))
          refuse(field.key,
                 "a number that float32 holds, in which is trained: 0, or of a size from 1.2e-38 "
                 "to 3.4e+38");
      }
      if (auto* text = std::get_if<std::string*>(&field.value); text && !is_utf8(**text))
        refuse(field.key, "'" + abridged(**text) + "'",
               "UTF-8; rename it, or give a link to it that has such a name");
      if (auto* text = std::get_if<std::string*>(&field.value);
          text && static_cast<int64_t>((**text).size()) > kLongest)
        refuse(field.key, "'" + abridged(**text) + "'",
               "at most " + number(kLongest) + " bytes, as many as a path may have");
    }
  }
  // So that products of these and of numbers of images are integers.
  void countable() const {
    for (const std::string level : {"pretrain.", "head.", "masker."}) {
      at_most(level + "accumulate", 65536);
      if (level != "masker.") at_most(level + "unroll", 65536);
    }
    at_most("run.reconstruction_steps", 1e12);
    at_most("run.epochs", 1e9);
    at_most("run.threads", 1024);
    at_most("run.snapshot_images", 1000);
    at_most("data.workers", 256);
    at_most("model.image_size", 16384);
    at_most("augmentation.padding", 16384);
    at_most("evaluation.finetune_epochs", 1e6);
  }
  void at_least(const std::string& key, double least) const {
    if (!(get(key) >= least)) refuse(key, "at least " + written(key, least));
  }
  void at_most(const std::string& key, double most) const {
    if (!(get(key) <= most)) refuse(key, "at most " + written(key, most));
  }
  void above(const std::string& key, double bound) const {
    if (!(get(key) > bound)) refuse(key, "more than " + written(key, bound));
  }
  // [least, bound)
  void within(const std::string& key, double least, double bound) const {
    const double value = get(key);
    if (!(value >= least && value < bound))
      refuse(key, "at least " + written(key, least) + " and less than " + written(key, bound));
  }
  // What an update multiplies by both.
  void product_fits(const std::string& key, const std::string& lr) const {
    if (const double rate = get(lr); get(key) > kLargest / rate)
      refuse(key, "at most " + number(kLargest / rate) + " with " + lr + " = " + number(rate) +
                      ", so that float32 holds their product");
  }
  [[noreturn]] static void refuse(const std::string& key, const std::string& given,
                                  const std::string& expected) {
    throw mlo::ConfigError(key + " = " + given + ": expected " + expected);
  }

 private:
  const Field& field(const std::string& key) const {
    for (const Field& field : fields_)
      if (field.key == key) return field;
    throw std::logic_error("no setting " + key);
  }
  double get(const std::string& key) const {
    const auto& value = field(key).value;
    if (auto* integer = std::get_if<int64_t*>(&value)) return static_cast<double>(**integer);
    return *std::get<double*>(value);
  }
  // A bound, as a number of the setting's kind.
  std::string written(const std::string& key, double bound) const {
    return std::holds_alternative<int64_t*>(field(key).value) ? number(static_cast<int64_t>(bound))
                                                              : number(bound);
  }
  [[noreturn]] void refuse(const std::string& key, const std::string& expected) const {
    const auto& value = field(key).value;
    if (auto* integer = std::get_if<int64_t*>(&value)) refuse(key, number(**integer), expected);
    refuse(key, number(*std::get<double*>(value)), expected);
  }

  Settings copy_;
  std::vector<Field> fields_;
};

}  // namespace

void Settings::make_absolute() {
  for (std::string* folder : {&data.path, &data.unlabelled}) {
    std::error_code error;  // where the working folder is gone, the path stays as it is
    const std::filesystem::path whole =
        std::filesystem::absolute(*folder, error).lexically_normal();
    if (!folder->empty() && !error)
      *folder = whole.has_filename() ? whole.string() : whole.parent_path().string();
  }
}

void Settings::validate() const {
  const Checks check(*this);
  check.choices();
  check.can_be_kept();
  check.countable();

  check.within("data.held_out", 0.0, 1.0);
  check.within("data.test_fraction", 0.0, 1.0);
  for (const char* key : {"data.limit", "data.workers", "data.split_seed", "augmentation.padding",
                          "model.image_size"})
    check.at_least(key, 0);
  check.at_least("data.prefetch", 1);
  if (data.channels != 0 && data.channels != 1 && data.channels != 3)
    Checks::refuse("data.channels", number(data.channels), "0, 1 or 3");
  if (!(augmentation.smallest_area > 0.0 && augmentation.smallest_area <= 1.0))
    Checks::refuse("augmentation.smallest_area", number(augmentation.smallest_area),
                   "more than 0 and at most 1");

  check.at_least("model.patch", 1);
  for (const char* key : {"model.dim", "model.depth", "model.heads", "model.decoder_dim",
                          "model.decoder_depth", "model.decoder_heads"})
    check.at_least(key, 0);
  check.within("model.dropout", 0.0, 1.0);
  check.within("model.head_dropout", 0.0, 1.0);
  check.at_least("masker.hidden", 1);
  if (!(masker.ratio > 0.0 && masker.ratio < 1.0))
    Checks::refuse("masker.ratio", number(masker.ratio),
                   "more than 0 (nothing masked) and less than 1 (nothing visible)");

  for (const std::string level : {"pretrain.", "head.", "masker."}) {
    for (const char* key : {"batch", "accumulate"}) check.at_least(level + key, 1);
    if (level != "masker.") check.at_least(level + "unroll", 1);
    check.above(level + "lr", 0.0);
    check.above(level + "eps", 0.0);
    check.within(level + "beta1", 0.0, 1.0);
    check.within(level + "beta2", 0.0, 1.0);
    check.within(level + "warmup", 0.0, 1.0);
    for (const char* key : {"weight_decay", "final_factor", "clip_norm"})
      check.at_least(level + key, 0.0);
    for (const char* key : {"weight_decay", "final_factor"})
      check.product_fits(level + key, level + "lr");
  }
  check.at_least("baselines.uniformity", 0.0);
  check.at_least("baselines.tradeoff", 0.0);

  for (const char* key : {"run.reconstruction_steps", "run.epochs", "run.seed", "run.threads",
                          "run.validate_every", "run.snapshot_every"})
    check.at_least(key, 0);
  for (const char* key : {"run.log_every", "run.checkpoint_every", "run.snapshot_images"})
    check.at_least(key, 1);
  if (run.reconstruction_steps == 0 && run.epochs == 0.0)
    Checks::refuse("run.reconstruction_steps", "0", "a number of steps, or run.epochs above 0");
  if (run.reconstruction_steps != 0 && run.epochs != 0.0)
    Checks::refuse(
        "run.epochs", number(run.epochs),
        "0, because run.reconstruction_steps says how long the run is; set one of the two to 0");

  for (const char* key : {"evaluation.batch", "evaluation.neighbours", "evaluation.finetune_batch"})
    check.at_least(key, 1);
  for (const char* key : {"evaluation.temperature", "evaluation.finetune_epochs",
                          "evaluation.finetune_lr", "evaluation.finetune_layer_decay"})
    check.above(key, 0.0);
  check.at_most("evaluation.finetune_layer_decay", 1.0);
  check.at_least("evaluation.seed", 0);
  check.at_least("evaluation.finetune_weight_decay", 0.0);
  check.product_fits("evaluation.finetune_weight_decay", "evaluation.finetune_lr");
  for (const char* key : {"evaluation.finetune_warmup", "evaluation.finetune_label_smoothing",
                          "evaluation.finetune_dropout"})
    check.within(key, 0.0, 1.0);

  const bool learns = run.method == "mlo-mae" || run.method == "blo-mae";
  if (learns && data.held_out == 0.0)
    Checks::refuse("data.held_out", "0",
                   "a part of the images for the masker to be trained on, for example 0.2");
  if (learns && masker.selection == "uniform")
    Checks::refuse(
        "masker.selection", "uniform",
        "rank or sampled with run.method = " + run.method + "; uniform masks are the method mae");
}

}  // namespace mlomae
