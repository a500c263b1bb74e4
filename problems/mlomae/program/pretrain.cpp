#include "mlomae/config/presets.h"
#include "mlomae/program/choices.h"
#include "mlomae/program/commands.h"
#include "mlomae/training/monitor.h"
#include "mlomae/training/run_directory.h"

#include <mlo/error.h>
#include <mlo/io/tensorboard.h>
#include <torch/torch.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <map>
#include <memory>

#include <unistd.h>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  SettingChoices choices;
  std::filesystem::path out;
  bool resume = false, dry_run = false, json = false;
};

mlo::Engine* running = nullptr;
extern "C" void on_signal(int) {
  if (running) running->request_stop();
}

std::string now() {
  const std::time_t time = std::time(nullptr);
  std::tm utc = {};
  ::gmtime_r(&time, &utc);
  char text[32] = {};
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

int64_t count(const torch::nn::Module& module) {
  int64_t n = 0;
  for (const at::Tensor& p : module.parameters())
    if (p.requires_grad()) n += p.numel();
  return n;
}

// Trained ones, by level.
Json parameter_counts(const Models& models) {
  Json json = {{"pretrain", count(*models.mae)}};
  if (models.head) json["head"] = count(*models.head);
  if (models.network) json["masker"] = count(*models.network);
  return json;
}

// What the engine warns of, where no progress bar says it.
class Warnings final : public mlo::Callback {
 public:
  void on_warning(const std::string& text) override { std::fprintf(stderr, "warning: %s\n", text.c_str()); }
};

// What a run will need, by taking a few steps of it.
int dry_run(const Settings& settings, bool as_json) {
  const Dataset dataset = opened(settings);
  const Models models = make_models(settings, dataset);
  const Length length = run_length(settings, dataset);
  const auto engine = make_engine(settings, dataset, models, {}, {.profile = true});
  engine->step();  // the first one also allocates
  std::map<std::string, mlo::Counters> before;
  for (const std::string& level : engine->level_names()) before[level] = engine->counters(level);
  const auto start = std::chrono::steady_clock::now();
  constexpr int kSteps = 2;
  for (int i = 0; i < kSteps; ++i) engine->step();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / kSteps;

  const Json counts = parameter_counts(models);
  Json levels = Json::object();
  for (const std::string& level : engine->level_names()) {
    const mlo::Counters &now = engine->counters(level), &then = before[level];
    levels[level] = {
        {"parameters", counts[level]},
        {"peak_mib", static_cast<double>(now.peak_bytes) / 1048576.0},
        {"seconds_a_step", (now.seconds - then.seconds) / static_cast<double>(std::max<int64_t>(1, now.steps - then.steps))},
        {"forwards_an_outer_step", (now.forwards - then.forwards) / kSteps},
        {"backwards_an_outer_step", (now.backwards - then.backwards) / kSteps}};
  }
  const Json result = {{"images", dataset.pretrain.size()},
                       {"image_size", dataset.image_size},
                       {"levels", levels},
                       {"reconstruction_steps", length.reconstruction_steps},
                       {"seconds_a_reconstruction_step", seconds / static_cast<double>(length.steps_each)},
                       {"hours", seconds * static_cast<double>(length.steps()) / 3600.0},
                       {"peak_mib", peak_mib()},
                       {"threads", at::get_num_threads()}};
  if (as_json) {
    std::printf("%s\n", result.dump().c_str());
    return 0;
  }
  std::printf("%zu images to pretrain on, %lld × %lld pixels; %lld reconstruction steps; %d threads\n\n%-10s %14s %16s %16s\n",
              dataset.pretrain.size(), static_cast<long long>(dataset.image_size), static_cast<long long>(dataset.image_size),
              static_cast<long long>(length.reconstruction_steps), at::get_num_threads(), "level", "parameters", "memory (MiB)",
              "seconds a step");
  for (const auto& [name, level] : levels.items())
    std::printf("%-10s %14lld %16.0f %16.3f\n", name.c_str(), level["parameters"].get<long long>(),
                level["peak_mib"].get<double>(), level["seconds_a_step"].get<double>());
  std::printf("\nabout %.3f s a reconstruction step with everything above it, %.1f hours in all; the process has used %.0f MiB\n",
              result["seconds_a_reconstruction_step"].get<double>(), result["hours"].get<double>(), peak_mib());
  return 0;
}

int pretrain(const Arguments& arguments) {
  const RunDirectory directory{arguments.out};
  if (arguments.resume && arguments.choices.any())
    throw mlo::ConfigError("--resume goes on with the settings in " + directory.config().string() +
                           "; leave the other options out");
  Settings settings = arguments.resume ? directory.settings() : arguments.choices.settings(preset("micro"));
  prepare(settings);
  if (arguments.dry_run) return dry_run(settings, arguments.json);
  if (arguments.out.empty()) throw mlo::ConfigError("--out is missing: give the directory that the run is to be kept in");

  const Dataset dataset = opened(settings);
  dataset.resolve(settings);
  const Models models = make_models(settings, dataset);
  const Length length = run_length(settings, dataset);
  if (!arguments.resume) directory.create();
  std::unique_ptr<mlo::Engine> engine;
  try {
    engine =
        make_engine(settings, dataset, models, knn_monitor(settings, dataset, models), {.checkpoint = directory.checkpoint()});
    engine->build();  // whatever is wrong shows before there is a run
  } catch (...) {
    std::error_code ignored;
    if (!arguments.resume) std::filesystem::remove(directory.path, ignored);  // made above, and empty
    throw;
  }
  const bool goes_on = arguments.resume && std::filesystem::exists(directory.checkpoint());
  if (goes_on) engine->load(directory.checkpoint());
  const int64_t before = engine->steps_taken();

  if (!arguments.resume) directory.write_settings(settings);
  Json record = arguments.resume && std::filesystem::exists(directory.record()) ? directory.read_record() : Json::object();
  if (!goes_on) {
    record = {{"name", folder_name(arguments.out)},
              {"method", settings.run.method},
              {"preset", arguments.choices.preset},
              {"data", dataset.name},
              {"seed", settings.run.seed},
              {"versions", versions()},
              {"processor", processor()},
              {"command", command_line()},
              {"device", settings.run.device},
              {"threads", at::get_num_threads()},
              {"started", now()},
              {"steps", length.steps()},
              {"reconstruction_steps", length.reconstruction_steps},
              {"images",
               {{"pretrain", dataset.pretrain.size()},
                {"head", dataset.head.size()},
                {"held_out", dataset.held_out.size()},
                {"test", dataset.test ? dataset.test->size() : 0}}},
              {"classes", dataset.train->classes().size()},
              {"mean", dataset.mean},
              {"deviation", dataset.deviation},
              {"notices", dataset.notices},
              {"parameters", parameter_counts(models)},
              {"seconds", 0.0}};
  } else {
    // A part that was killed has left its time in the log only.
    record["seconds"] = record.value("seconds", 0.0) + directory.logged_seconds(record.value("steps_taken", int64_t{0}), before);
    record["steps_taken"] = before;
  }
  directory.write_record(record);

  const int64_t images_a_step = settings.pretrain.batch * settings.pretrain.accumulate * length.steps_each;
  engine->add(mlo::progress_bar(stderr, {.a_step = static_cast<double>(images_a_step), .unit = "images"}));
  if (::isatty(::fileno(stderr)) != 1) engine->add(std::make_shared<Warnings>());  // a terminal's progress bar says them itself
  engine->add(mlo::json_lines(directory.log(), settings.run.log_every));
  engine->add(mlo::tensorboard(directory.tensorboard(), settings.run.log_every));
  engine->add(snapshots(settings, dataset, models, directory.masks(), directory.tensorboard()));

  running = engine.get();
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  const mlo::RunSummary summary = engine->run();
  running = nullptr;

  directory.write_models(models);
  record["finished"] = now();
  record["reason"] = mlo::to_string(summary.reason);
  record["steps_taken"] = summary.steps;
  record["seconds"] = record.value("seconds", 0.0) + summary.seconds;
  record["images_per_second"] = static_cast<double>((summary.steps - before) * images_a_step) / std::max(summary.seconds, 1e-9);
  record["peak_mib"] = peak_mib();
  directory.write_record(record);

  if (arguments.json) {
    Json line = {{"run", arguments.out.string()},  {"method", settings.run.method},
                 {"reason", record["reason"]},     {"reconstruction_steps", summary.steps * length.steps_each},
                 {"seconds", summary.seconds},     {"images_per_second", record["images_per_second"]},
                 {"peak_mib", record["peak_mib"]}, {"notices", dataset.notices},
                 {"losses", Json::object()}};
    for (const std::string& level : engine->level_names()) line["losses"][level] = engine->loss(level);
    std::printf("%s\n", line.dump().c_str());
  } else {
    std::printf("%s: %lld reconstruction steps in %.0f s (%.0f images/s, %.0f MiB)\n", arguments.out.string().c_str(),
                static_cast<long long>(summary.steps * length.steps_each), summary.seconds,
                record["images_per_second"].get<double>(), peak_mib());
  }
  if (summary.reason == mlo::RunSummary::Reason::steps) return 0;
  std::fprintf(stderr, "stopped and saved; `mlomae pretrain --out %s --resume` goes on\n", arguments.out.string().c_str());
  return 3;
}

}  // namespace

void add_pretrain(CLI::App& app, Action& chosen) {
  CLI::App* command = app.add_subcommand("pretrain", "train an encoder, by MLO-MAE or by a baseline");
  const auto arguments = std::make_shared<Arguments>();
  arguments->choices.add_to(*command, /*with_method=*/true);
  command->add_option("--out", arguments->out, "directory for the run: settings, logs, checkpoints, pictures, weights");
  command->add_flag("--resume", arguments->resume, "go on with the run in --out");
  command->add_flag("--dry-run", arguments->dry_run, "take three steps, and say what the run needs");
  command->add_flag("--json", arguments->json, "print the result as one JSON object");
  command->callback([arguments, &chosen] { chosen = [arguments] { return pretrain(*arguments); }; });
}

}  // namespace mlomae
