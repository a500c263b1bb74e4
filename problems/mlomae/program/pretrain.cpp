#include "mlomae/config/json.h"
#include "mlomae/config/json_text.h"
#include "mlomae/config/presets.h"
#include "mlomae/message.h"
#include "mlomae/program/choices.h"
#include "mlomae/program/commands.h"
#include "mlomae/training/dry_run.h"
#include "mlomae/training/train.h"

#include <mlo/callbacks/progress_bar.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <memory>

#include <unistd.h>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

struct PretrainArguments {
  SettingChoices choices;
  std::filesystem::path out;
  std::vector<std::string> allowed;
  bool resume = false, dry_run = false, json = false;
};

// What the engine warns of, where no progress bar says it.
class Warnings final : public mlo::Callback {
 public:
  void on_warning(const std::string& text) override { print(stderr, "warning: {}", text); }
};

int print_needs(const Json& needs, bool as_json) {
  if (as_json) {
    print(stdout, "{}", json_text(needs));
    return 0;
  }
  const auto real = [](const Json& number) { return number.get<double>(); };
  const auto integer = [](const Json& number) { return number.get<int64_t>(); };
  print(stdout,
        "{0} images to pretrain on, {1} × {1} pixels; {2} reconstruction steps; {3} threads\n\n"
        "{4:<10} {5:>14} {6:>16} {7:>16}",
        integer(needs["images"]), integer(needs["image_size"]),
        integer(needs["reconstruction_steps"]), integer(needs["threads"]), "level", "parameters",
        "memory (MiB)", "seconds a step");
  for (const auto& [name, level] : needs["levels"].items())
    print(stdout, "{:<10} {:>14} {:>16.0f} {:>16.3f}", name, integer(level["parameters"]),
          real(level["peak_mib"]), real(level["seconds_per_step"]));
  print(stdout,
        "\nabout {:.3f} s a reconstruction step with everything above it, {:.1f} hours in all; the "
        "process has used {:.0f} MiB",
        real(needs["seconds_per_reconstruction_step"]), real(needs["hours"]),
        real(needs["peak_mib"]));
  return 0;
}

void print_outcome(const PretrainArguments& arguments, const RunOutcome& outcome) {
  const Json& record = outcome.record;
  if (arguments.json)
    print(stdout, "{}",
          json_text({{"run", arguments.out.string()},
                     {"method", record["method"]},
                     {"reason", record["reason"]},
                     {"reconstruction_steps", outcome.reconstruction_steps},
                     {"seconds", outcome.summary.seconds},
                     {"images_per_second", record["images_per_second"]},
                     {"peak_mib", record["peak_mib"]},
                     {"notices", record["notices"]},
                     {"losses", outcome.losses}}));
  else
    print(stdout, "{}: {} reconstruction steps in {:.0f} s ({:.0f} images/s, {:.0f} MiB)",
          arguments.out.string(), outcome.reconstruction_steps, outcome.summary.seconds,
          record["images_per_second"].get<double>(), record["peak_mib"].get<double>());
}

int pretrain(const PretrainArguments& arguments) {
  const RunDirectory directory{arguments.out};
  require(!arguments.out.empty() || arguments.dry_run,
          "--out is missing: give the directory that the run is to be kept in");
  require(arguments.resume || arguments.allowed.empty(),
          "--allow-changed is about a run that goes on; it needs --resume");
  for (const std::string& key : arguments.allowed) check_key(key, "--allow-changed ");
  Settings settings =
      arguments.choices.settings(arguments.resume ? directory.settings() : preset("micro"));
  prepare(settings);
  if (arguments.dry_run) return print_needs(dry_run(settings, opened(settings)), arguments.json);
  if (arguments.resume && !std::filesystem::exists(directory.checkpoint()) &&
      std::filesystem::exists(directory.model()))
    refuse(
        "{} has weights and no checkpoint.mlo to go on from: weights that were imported are for "
        "`mlomae evaluate`, not for training",
        directory.path.string());

  const Dataset dataset = opened(settings);
  dataset.resolve(settings);
  std::vector<std::shared_ptr<mlo::Callback>> watchers = {mlo::progress_bar(
      stderr,
      {.per_step = static_cast<double>(images_per_step(settings, dataset)), .unit = "images"})};
  if (::isatty(::fileno(stderr)) != 1)  // a terminal's progress bar says them itself
    watchers.push_back(std::make_shared<Warnings>());
  const RunOutcome outcome =
      train({directory, settings, arguments.choices.preset, arguments.resume, arguments.allowed},
            dataset, watchers, [](const std::string& text) { print(stderr, "{}", text); });
  print_outcome(arguments, outcome);
  if (outcome.summary.reason == mlo::RunSummary::Reason::steps) return 0;
  print(stderr, "stopped and saved; `mlomae pretrain --out {} --resume` goes on",
        arguments.out.string());
  return 3;
}

}  // namespace

void add_pretrain(CLI::App& app, Action& chosen) {
  CLI::App* command =
      app.add_subcommand("pretrain", "train an encoder, by MLO-MAE or by a baseline");
  const auto arguments = std::make_shared<PretrainArguments>();
  arguments->choices.add_to(*command, /*with_method=*/true);
  command->add_option("--out", arguments->out,
                      "directory for the run: settings, logs, checkpoints, pictures, weights");
  command->add_flag(
      "--resume", arguments->resume,
      "go on with the run in --out; with other settings only if they are allowed to be others. A "
      "larger run.reconstruction_steps makes a finished run longer; --data says where its images "
      "are now");
  command->add_option("--allow-changed", arguments->allowed,
                      "with --resume: a setting that may differ from the checkpoint's (data.path: "
                      "the images); may be given several times");
  command->add_flag("--dry-run", arguments->dry_run,
                    "take three steps, and say what the run needs");
  command->add_flag("--json", arguments->json, "print the result as one JSON object");
  command->footer(
      "Settings: all but evaluation.*, which `evaluate` reads.\n"
      "Example:  mlomae pretrain --preset micro --data photos --set model.image_size=64 --out run\n"
      "          mlomae pretrain --out run --resume --set run.reconstruction_steps=4000      "
      "(longer)");
  command->callback(
      [arguments, &chosen] { chosen = [arguments] { return pretrain(*arguments); }; });
}

}  // namespace mlomae
