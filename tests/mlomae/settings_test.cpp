// Every setting with values that nobody means: refused in words, or a run that can be made.
#include "mlomae/config/fields.h"
#include "mlomae/config/json.h"
#include "mlomae/config/presets.h"
#include "mlomae/training/pretraining.h"

#include "io/files.h"

#include <mlo/data/image_file.h>
#include <mlo/error.h>
#include <torch/types.h>
#include <nlohmann/json.hpp>

#include <random>

#include "catch.h"

using Catch::Matchers::Contains;
using mlo::ConfigError;
using namespace mlomae;
using Json = nlohmann::ordered_json;

namespace {

Settings small(const std::filesystem::path& folder, const std::string& method, bool by_epochs) {
  Settings s = preset("micro");
  s.data.path = folder.string();
  s.run.method = method;
  s.run.reconstruction_steps = by_epochs ? 0 : 4;
  s.run.epochs = by_epochs ? 8 : 0;
  s.model.patch = 2;
  s.model.dim = 16, s.model.depth = 1, s.model.heads = 2, s.model.decoder_dim = 8,
  s.model.decoder_depth = 1, s.model.decoder_heads = 2;
  s.masker.hidden = 8;
  s.augmentation.padding = 1;
  for (LevelSettings* level :
       std::initializer_list<LevelSettings*>{&s.pretrain, &s.head, &s.masker})
    level->batch = 2;
  return s;
}

// All that is decided before the first step.
void prepare_run(const Settings& settings) {
  settings.validate();
  const Dataset dataset = open_dataset(settings);
  const Length length = run_length(settings, dataset);
  CHECK(length.reconstruction_steps >= 1);
  CHECK(length.steps() * length.steps_each == length.reconstruction_steps);
  const Models models = make_models(settings, dataset);
  make_engine(settings, dataset, models, {}, {});
}

}  // namespace

TEST_CASE("Whatever a setting is given, it is refused by its name or the run can be made",
          "[config][property]") {
  const TemporaryFolder folder;
  for (const char* name : {"a", "b"}) {
    std::filesystem::create_directories(folder / name);
    for (int i = 0; i < 8; ++i)
      mlo::write_png((folder / name) / (std::to_string(i) + ".png"),
                     torch::full({3, 8, 8}, 20 * i, at::kByte));
  }
  const std::vector<Json> values = {0,
                                    -1,
                                    1,
                                    3,
                                    0.5,
                                    -0.5,
                                    1e308,
                                    1e-308,
                                    int64_t{1} << 60,
                                    INT64_MAX,
                                    UINT64_MAX,
                                    true,
                                    nullptr,
                                    "",
                                    "nan",
                                    "1e999",
                                    std::string("\xFF/x"),
                                    Json::array(),
                                    Json::object()};
  const std::vector<std::string> methods = {"mlo-mae", "mae",     "u-mae",
                                            "sup-mae", "blo-mae", "fixed"};
  std::mt19937_64 random(20261128);
  Settings any;
  int made = 0, refused = 0;
  for (const Field& field : fields(any))
    for (const Json& value : values) {
      // A third of them, and always what overflows.
      if (random() % 3 != 0 && value != Json(int64_t{1} << 60)) continue;
      if (field.key == "run.device")
        continue;  // the program looks at it, where the machine is known
      const std::string method = methods[random() % methods.size()];
      const bool by_epochs = random() % 2 == 0 && field.key != "run.reconstruction_steps";
      INFO(field.key << " = " << value.dump(-1, ' ', false, Json::error_handler_t::replace) << ", "
                     << method << (by_epochs ? ", by epochs" : ""));
      Settings s = small(folder / "", method, by_epochs);
      const std::size_t dot = field.key.find('.');
      try {
        if (value.is_string() && random() % 2 == 0)
          apply_assignment(s, field.key + "=" + value.get<std::string>());
        else
          apply_json(s, {{field.key.substr(0, dot), {{field.key.substr(dot + 1), value}}}}, "");
        prepare_run(s);
        ++made;
      } catch (const mlo::Error& error) {
        CHECK_THAT(error.what(), Contains(field.key.substr(dot + 1)));
        ++refused;
      }  // any other exception fails the test
    }
  CHECK(made > 100);
  CHECK(refused > 100);
}

TEST_CASE("A real number that float32 does not hold is refused by name", "[config][property]") {
  Settings any;
  int reals = 0;
  for (const Field& field : fields(any)) {
    if (!std::holds_alternative<double*>(field.value)) continue;
    ++reals;
    for (const double value : {1e300, -1e300, 1e39, 1e-39, 1e-300}) {
      INFO(field.key << " = " << value);
      Settings s = preset("micro");
      const std::size_t dot = field.key.find('.');
      apply_json(s, {{field.key.substr(0, dot), {{field.key.substr(dot + 1), value}}}}, "");
      CHECK_THAT(message_of<ConfigError>([&] { s.validate(); }), Contains(field.key + " = "));
    }
  }
  CHECK(reals > 30);
  const auto refused = [](auto change) {
    Settings s = preset("micro");
    change(s);
    return message_of<ConfigError>([&] { s.validate(); });
  };
  CHECK_THAT(refused([](Settings& s) { s.evaluation.finetune_layer_decay = 1.5; }),
             Contains("finetune_layer_decay = 1.5; it must be more than 0 and at most 1"));
  CHECK(refused([](Settings& s) { s.evaluation.finetune_layer_decay = 1.0; }).empty());
  // Each fits, and what an update makes of them does not.
  CHECK_THAT(refused([](Settings& s) { s.pretrain.lr = 1e38, s.pretrain.weight_decay = 10.0; }),
             Contains("pretrain.weight_decay = 10; it must be at most 3.4"));
  CHECK_THAT(refused([](Settings& s) { s.head.lr = 1e30, s.head.final_factor = 1e30; }),
             Contains("head.final_factor"));
  CHECK_THAT(refused([](Settings& s) {
               s.evaluation.finetune_lr = 1e30, s.evaluation.finetune_weight_decay = 1e30;
             }),
             Contains("evaluation.finetune_weight_decay"));
}

TEST_CASE("Numbers in messages are the ones that were given", "[config]") {
  const auto refused = [](auto change) {
    Settings s = preset("micro");
    change(s);
    return message_of<ConfigError>([&] { s.validate(); });
  };
  CHECK_THAT(refused([](Settings& s) { s.masker.eps = -1e-12; }),
             Contains("masker.eps = -1e-12; it must be more than 0"));
  CHECK_THAT(refused([](Settings& s) { s.run.epochs = 1e-9; }),
             Contains("run.epochs = 1e-09; it must be 0"));
  CHECK_THAT(refused([](Settings& s) { s.head.batch = -3; }),
             Contains("head.batch = -3; it must be at least 1") && !Contains("1.0"));
  CHECK_THAT(
      refused([](Settings& s) { s.pretrain.accumulate = int64_t{1} << 60; }),
      Contains(
          "pretrain.accumulate = 1152921504606846976; it must be at least 1 and at most 65536"));
  CHECK_THAT(refused([](Settings& s) { s.data.path = "a\xFF"; }),
             Contains("data.path") && Contains("UTF-8"));
  CHECK_THAT(
      refused([](Settings& s) { s.pretrain.clip_norm = std::numeric_limits<double>::infinity(); }),
      Contains("pretrain.clip_norm") && Contains("finite"));
}

TEST_CASE("A number that no integer holds is refused, not wrapped", "[config]") {
  Settings s;
  CHECK_THROWS_WITH(apply_json(s, {{"model", {{"patch", UINT64_MAX}}}}, ""),
                    Contains("model.patch") && Contains("whole number"));
}

TEST_CASE("Epochs are counted without overflow, also where a step takes more than one",
          "[config]") {
  const TemporaryFolder folder;
  Settings s = small(folder / "", "mae", true);
  Dataset data;
  data.pretrain.resize(48);
  s.pretrain.batch = 8;  // 6 batches an epoch
  s.pretrain.unroll = 1;
  s.run.epochs = 2;
  CHECK(run_length(s, data).reconstruction_steps == 12);
  s.pretrain.accumulate = 12;
  CHECK(run_length(s, data).reconstruction_steps == 1);
  s.pretrain.accumulate = 13;
  CHECK_THAT(message_of<ConfigError>([&] { run_length(s, data); }),
             Contains("run.epochs = 2 of 48 images") && Contains("8 × 13 × 1") &&
                 Contains("pretrain.accumulate"));
  s.pretrain.accumulate = int64_t{1} << 60;
  CHECK_THAT(message_of<ConfigError>([&] { run_length(s, data); }),
             Contains("pretrain.accumulate"));
}

TEST_CASE("Folders are kept as seen from the root", "[config]") {
  Settings s;
  s.make_absolute();
  CHECK(s.data.path.empty());
  s.data.path = "photos/../x/";
  s.data.unlabelled = ".";
  s.make_absolute();
  CHECK(s.data.path == (std::filesystem::current_path() / "x").string());
  CHECK(s.data.unlabelled == std::filesystem::current_path().string());
}
