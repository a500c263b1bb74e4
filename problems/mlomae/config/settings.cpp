#include "mlomae/config/settings.h"

#include "mlomae/config/fields.h"

#include <mlo/error.h>

#include <algorithm>
#include <string_view>

namespace mlomae {
namespace {

template <class Number>
std::string number(Number value) {
  std::string text = std::to_string(value);
  if constexpr (std::is_floating_point_v<Number>) text.erase(std::max(text.find_last_not_of('0'), text.find('.') + 1) + 1);
  return text;
}

class Checks {
 public:
  explicit Checks(const Settings& settings) : copy_(settings), fields_(fields(copy_)) {}

  void choices() const {
    for (const Field& field : fields_) {
      if (field.choices.empty()) continue;
      const std::string& value = *std::get<std::string*>(field.value);
      if (std::find(field.choices.begin(), field.choices.end(), value) == field.choices.end())
        refuse(field.key, "'" + value + "'", "one of those that `mlomae config` lists");
    }
  }
  void at_least(const std::string& key, double least) const {
    const double value = get(key);
    if (!(value >= least)) refuse(key, number(value), "at least " + number(least));
  }
  void above(const std::string& key, double bound) const {
    const double value = get(key);
    if (!(value > bound)) refuse(key, number(value), "more than " + number(bound));
  }
  // [least, bound)
  void within(const std::string& key, double least, double bound) const {
    const double value = get(key);
    if (!(value >= least && value < bound))
      refuse(key, number(value), "at least " + number(least) + " and less than " + number(bound));
  }
  [[noreturn]] static void refuse(const std::string& key, const std::string& given, const std::string& expected) {
    throw mlo::ConfigError(key + " = " + given + ": expected " + expected);
  }

 private:
  double get(const std::string& key) const {
    for (const Field& field : fields_) {
      if (field.key != key) continue;
      if (auto* integer = std::get_if<int64_t*>(&field.value)) return static_cast<double>(**integer);
      return *std::get<double*>(field.value);
    }
    throw std::logic_error("no setting " + key);
  }

  Settings copy_;
  std::vector<Field> fields_;
};

}  // namespace

void Settings::validate() const {
  const Checks check(*this);
  check.choices();

  check.within("data.held_out", 0.0, 1.0);
  check.within("data.test_fraction", 0.0, 1.0);
  for (const char* key : {"data.limit", "data.workers", "data.split_seed", "augmentation.padding", "model.image_size"})
    check.at_least(key, 0);
  check.at_least("data.prefetch", 1);
  if (data.channels != 0 && data.channels != 1 && data.channels != 3)
    Checks::refuse("data.channels", number(data.channels), "0, 1 or 3");
  if (!(augmentation.smallest_area > 0.0 && augmentation.smallest_area <= 1.0))
    Checks::refuse("augmentation.smallest_area", number(augmentation.smallest_area), "more than 0 and at most 1");

  check.at_least("model.patch", 1);
  for (const char* key :
       {"model.dim", "model.depth", "model.heads", "model.decoder_dim", "model.decoder_depth", "model.decoder_heads"})
    check.at_least(key, 0);
  check.within("model.dropout", 0.0, 1.0);
  check.within("model.head_dropout", 0.0, 1.0);
  check.at_least("mask.hidden", 1);
  if (!(mask.ratio > 0.0 && mask.ratio < 1.0))
    Checks::refuse("mask.ratio", number(mask.ratio), "more than 0 (nothing masked) and less than 1 (nothing visible)");

  for (const std::string level : {"pretrain.", "head.", "masker."}) {
    for (const char* key : {"batch", "accumulate"}) check.at_least(level + key, 1);
    if (level != "masker.") check.at_least(level + "unroll", 1);
    check.above(level + "lr", 0.0);
    check.above(level + "eps", 0.0);
    check.within(level + "beta1", 0.0, 1.0);
    check.within(level + "beta2", 0.0, 1.0);
    check.within(level + "warmup", 0.0, 1.0);
    for (const char* key : {"weight_decay", "final_factor", "clip_norm"}) check.at_least(level + key, 0.0);
  }
  check.at_least("baselines.uniformity", 0.0);
  check.at_least("baselines.tradeoff", 0.0);

  for (const char* key :
       {"run.reconstruction_steps", "run.epochs", "run.seed", "run.threads", "run.validate_every", "run.snapshot_every"})
    check.at_least(key, 0);
  for (const char* key : {"run.log_every", "run.checkpoint_every", "run.snapshot_images"}) check.at_least(key, 1);
  if (run.reconstruction_steps == 0 && run.epochs == 0.0)
    Checks::refuse("run.reconstruction_steps", "0", "a number of steps, or run.epochs above 0");
  if (run.reconstruction_steps != 0 && run.epochs != 0.0)
    Checks::refuse("run.epochs", number(run.epochs),
                   "0, because run.reconstruction_steps says how long the run is; set one of the two to 0");

  for (const char* key : {"evaluation.batch", "evaluation.neighbours", "evaluation.finetune_batch"}) check.at_least(key, 1);
  for (const char* key :
       {"evaluation.temperature", "evaluation.finetune_epochs", "evaluation.finetune_lr", "evaluation.finetune_layer_decay"})
    check.above(key, 0.0);
  check.at_least("evaluation.seed", 0);
  check.at_least("evaluation.finetune_weight_decay", 0.0);
  for (const char* key : {"evaluation.finetune_warmup", "evaluation.finetune_label_smoothing", "evaluation.finetune_dropout"})
    check.within(key, 0.0, 1.0);

  const bool learns = run.method == "mlo-mae" || run.method == "blo-mae";
  if (learns && data.held_out == 0.0)
    Checks::refuse("data.held_out", "0",
                   "a part of the images for the masking network's level to be trained on, for example 0.2");
  if (learns && mask.selection == "uniform")
    Checks::refuse("mask.selection", "uniform",
                   "rank or sampled with run.method = " + run.method + "; uniform masks are the method mae");
}

}  // namespace mlomae
