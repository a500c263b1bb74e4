#include "mlomae/models/weights.h"

#include "mlomae/config/presets.h"
#include "mlomae/evaluation/classifier.h"
#include "mlomae/message.h"
#include "mlomae/program/choices.h"
#include "mlomae/program/commands.h"
#include "mlomae/run/record.h"
#include "mlomae/run/run_directory.h"
#include "mlomae/training/pretraining.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <memory>

namespace mlomae {
namespace {

void add_export(CLI::App& app, Action& chosen) {
  struct Arguments {
    std::filesystem::path run, out;
    bool encoder = false;
  };
  CLI::App* command =
      app.add_subcommand("export", "a run's weights as safetensors, under the official MAE names");
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("run", arguments->run, "directory of the run")->required();
  command->add_option("out", arguments->out, "the file")->required();
  command->add_flag("--encoder", arguments->encoder, "the encoder alone, as timm loads it");
  command->callback([arguments, &chosen] {
    chosen = [arguments] {
      const RunDirectory directory{arguments->run};
      const auto from = arguments->encoder ? directory.encoder() : directory.model();
      if (!std::filesystem::exists(from))
        refuse("{} is not there: the run was cut off, or this is none; finish it with --resume",
               from.string());
      const ModelOptions options = model_options_of(from);
      MaskedAutoencoder mae(options);
      import_weights(from, mae);
      if (arguments->encoder)
        export_encoder(arguments->out, mae);
      else
        export_model(arguments->out, mae);
      print(stdout, "{}", arguments->out.string());
      return 0;
    };
  });
}

struct Import {
  std::filesystem::path file, out;
  SettingChoices choices;
};

// The model's shape as the file has it; what the file cannot say may be set.
void take_shape(const std::filesystem::path& file, Settings::Model& m) {
  const ModelOptions found = model_options_of(
      file, {.heads = m.heads, .decoder_heads = m.decoder_heads, .assumed = [](const auto& text) {
               print(stderr, "assumed: {}", text);
             }});
  m.patch = found.patch, m.dim = found.dim, m.depth = found.depth,
  m.decoder_dim = found.decoder_dim, m.decoder_depth = found.decoder_depth;
  if (m.image_size == 0) m.image_size = found.image_size;
  if (m.heads == 0) m.heads = found.heads;
  if (m.decoder_heads == 0) m.decoder_heads = found.decoder_heads;
  m.normalize_targets = found.normalize_targets;
}

// A run of no steps whose encoder comes from elsewhere, to be evaluated like any other.
int import_run(const Import& arguments) {
  Settings settings = arguments.choices.settings(preset("micro"));
  settings.run.method = "mae";
  take_shape(arguments.file, settings.model);
  settings.pretrain.batch = 1;  // no step is taken: any number of images will do
  prepare(settings);
  const Dataset dataset = opened(settings);
  dataset.resolve(settings);
  const Models models = make_models(settings, dataset);
  import_weights(arguments.file, models.mae);
  const RunDirectory directory{arguments.out};
  directory.create();
  directory.write_settings(settings);
  directory.write_record({{"name", folder_name(arguments.out)},
                          {"method", "imported"},
                          {"data", dataset.name},
                          {"seed", 0},
                          {"versions", versions()},
                          {"command", "mlomae import " + arguments.file.string()},
                          {"steps", 0},
                          {"reconstruction_steps", 0},
                          {"image_size", dataset.image_size},
                          {"channels", dataset.train->channels()},
                          {"class_names", dataset.train->classes()},
                          {"mean", dataset.mean},
                          {"deviation", dataset.deviation},
                          {"encoder", checksum(models.mae)},
                          {"seconds", 0.0}});
  directory.write_models(models);
  print(stdout, "{}", arguments.out.string());
  return 0;
}

void add_import(CLI::App& app, Action& chosen) {
  CLI::App* command = app.add_subcommand(
      "import",
      "make a run directory of weights in the official MAE naming (safetensors), to evaluate them");
  const auto arguments = std::make_shared<Import>();
  command->add_option("file", arguments->file, "the weights")->required();
  command->add_option("--out", arguments->out, "directory for the run")->required();
  arguments->choices.add_to(*command, /*with_method=*/false);
  command->footer(
      "Settings: data.*; model.image_size; model.heads and model.decoder_heads, which a file does "
      "not say; evaluation.*.\n"
      "Example:  mlomae import mae.safetensors --data photos --preset imagenet --out imported");
  command->callback(
      [arguments, &chosen] { chosen = [arguments] { return import_run(*arguments); }; });
}

}  // namespace

void add_weights(CLI::App& app, Action& chosen) {
  add_export(app, chosen);
  add_import(app, chosen);
}

}  // namespace mlomae
