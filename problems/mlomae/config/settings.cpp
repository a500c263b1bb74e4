#include "mlomae/config/settings.h"

#include "mlomae/config/fields.h"
#include "mlomae/config/methods.h"
#include "mlomae/message.h"

#include <filesystem>

namespace mlomae {
namespace {

// What an update multiplies by both.
void check_product(const std::string& key, double value, const std::string& lr, double rate) {
  const double most = std::numeric_limits<float>::max() / rate;
  require(value <= most,
          "{} = {}; it must be at most {} with {} = {}, so that float32 holds their product", key,
          value, most, lr, rate);
}

void check_products(const std::string& level, const LevelSettings& s) {
  check_product(level + ".weight_decay", s.weight_decay, level + ".lr", s.lr);
  check_product(level + ".final_factor", s.final_factor, level + ".lr", s.lr);
}

}  // namespace

void Settings::make_absolute() {
  for (std::string* folder : {&data.path, &data.unlabelled, &data.maps}) {
    std::error_code error;  // where the working folder is gone, the path stays as it is
    const std::filesystem::path whole =
        std::filesystem::absolute(*folder, error).lexically_normal();
    if (!folder->empty() && !error)
      *folder = whole.has_filename() ? whole.string() : whole.parent_path().string();
  }
}

void Settings::validate() const {
  Settings copy = *this;
  for (const Field& field : fields(copy)) field.check();

  require(data.channels != 2, "data.channels = 2; it must be 0, 1 or 3");
  check_products("pretrain", pretrain);
  check_products("head", head);
  check_products("masker", masker);
  check_product("evaluation.finetune_weight_decay", evaluation.finetune_weight_decay,
                "evaluation.finetune_lr", evaluation.finetune_lr);
  require(run.reconstruction_steps != 0 || run.epochs != 0.0,
          "run.reconstruction_steps = 0; it must be a number of steps, or run.epochs above 0");
  require(run.reconstruction_steps == 0 || run.epochs == 0.0,
          "run.epochs = {}; it must be 0, because run.reconstruction_steps says how long the run "
          "is; set one of the two to 0",
          run.epochs);

  const Method& method = method_of(*this);
  require(!method.learns() || data.held_out > 0.0,
          "data.held_out = 0; it must be more than 0 with run.method = {}, whose masker is trained "
          "on the images held out; 0.2 for example",
          method.name);
  require(!method.learns() || masker.weighs != "alike" || masker.selects == "own",
          "masker.weighs = 'alike' with masker.selects = '{}'; with run.method = {} the masker is "
          "trained by what patches count: choose other weights, or masker.selects = own",
          masker.selects, method.name);
  if (model.head_norm == "batch") {
    const auto check = [](const char* key, int64_t batch) {
      require(batch >= 2,
              "{} = 1 with model.head_norm = batch, which takes each feature's mean and deviation "
              "over the batch; choose 2 or more (many more are better), or head_norm = layer",
              key);
    };
    if (method.levels == 3) check("head.batch", head.batch);
    if (method.learns()) check("masker.batch", masker.batch);
    if (method.head && method.levels < 3) check("pretrain.batch", pretrain.batch);
  }
  require(!method.learns() || masker.input != "coupled" ||
              pretrain.best_response != "reverse-over-forward" ||
              (masker.network != "convolution" && masker.network != "attention"),
          "pretrain.best_response = 'reverse-over-forward' with masker.input = 'coupled' and "
          "masker.network = '{}', whose forward derivative LibTorch does not differentiate right; "
          "choose pretrain.best_response = one-step or darts, or masker.input = held or pixels",
          masker.network);
  require(method.levels < 3 || head.best_response != "reverse-over-forward",
          "head.best_response = 'reverse-over-forward', and LibTorch does not differentiate the "
          "forward derivative of its loss (a cross entropy) right; choose one-step or darts");
  require(method.masks != Masks::known || !data.maps.empty(),
          "data.maps is empty; run.method = {} takes masks and weights from maps, one an image: "
          "give the folder (--set data.maps=FOLDER)",
          method.name);
  require(method.masks != Masks::known || masker.selects != "own",
          "masker.selects = 'own'; it must be 'uniform', 'rank' or 'sampled' with run.method = {}, "
          "which has no masker",
          method.name);
}

}  // namespace mlomae
