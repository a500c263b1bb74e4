#include "mlomae/config/json.h"
#include "mlomae/config/json_text.h"
#include "mlomae/config/presets.h"
#include "mlomae/evaluation/classifier.h"
#include "mlomae/program/choices.h"
#include "mlomae/program/commands.h"
#include "mlomae/run/lock.h"
#include "mlomae/run/record.h"
#include "mlomae/run/run_directory.h"
#include "mlomae/run/stamp.h"
#include "mlomae/training/monitor.h"

#include <ATen/ATen.h>
#include <mlo/callbacks/json_lines.h>
#include <mlo/callbacks/progress_bar.h>
#include <mlo/callbacks/tensorboard.h>
#include <mlo/error.h>
#include <mlo/io/checkpoint.h>
#include <mlo/io/event_file.h>
#include <torch/nn/module.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <map>
#include <memory>
#include <optional>

#include <unistd.h>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  SettingChoices choices;
  std::filesystem::path out;
  std::vector<std::string> allowed;
  bool resume = false, dry_run = false, json = false;
};

mlo::Engine* running = nullptr;
extern "C" void on_signal(int) {
  if (running) running->request_stop();
}

// While it lives, what asks a process to end (Ctrl-C, kill, a terminal that is closed) ends the run
// after its step instead.
class Stoppable {
 public:
  explicit Stoppable(mlo::Engine& engine) {
    running = &engine;
    std::signal(SIGINT, on_signal);
    std::signal(SIGTERM, on_signal);
    if (std::signal(SIGHUP, on_signal) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // nohup
  }
  ~Stoppable() { running = nullptr; }
  Stoppable(const Stoppable&) = delete;
  Stoppable& operator=(const Stoppable&) = delete;
};

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
  if (models.masker) json["masker"] = count(*models.masker);
  return json;
}

// What the engine warns of, where no progress bar says it.
class Warnings final : public mlo::Callback {
 public:
  void on_warning(const std::string& text) override {
    std::fprintf(stderr, "warning: %s\n", text.c_str());
  }
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
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / kSteps;

  const Json counts = parameter_counts(models);
  Json levels = Json::object();
  for (const std::string& level : engine->level_names()) {
    const mlo::Counters &now = engine->counters(level), &then = before[level];
    levels[level] = {
        {"parameters", counts[level]},
        {"peak_mib", static_cast<double>(now.peak_bytes) / 1048576.0},
        {"seconds_per_step", (now.seconds - then.seconds) /
                                 static_cast<double>(std::max<int64_t>(1, now.steps - then.steps))},
        {"forwards_per_outer_step", (now.forwards - then.forwards) / kSteps},
        {"backwards_per_outer_step", (now.backwards - then.backwards) / kSteps}};
  }
  const Json result = {
      {"images", dataset.pretrain.size()},
      {"image_size", dataset.image_size},
      {"levels", levels},
      {"reconstruction_steps", length.reconstruction_steps},
      {"seconds_per_reconstruction_step", seconds / static_cast<double>(length.steps_each)},
      {"hours", seconds * static_cast<double>(length.steps()) / 3600.0},
      {"peak_mib", peak_mib()},
      {"threads", at::get_num_threads()}};
  if (as_json) {
    std::printf("%s\n", json_text(result).c_str());
    return 0;
  }
  std::printf(
      "%zu images to pretrain on, %lld × %lld pixels; %lld reconstruction steps; %d "
      "threads\n\n%-10s %14s %16s %16s\n",
      dataset.pretrain.size(), static_cast<long long>(dataset.image_size),
      static_cast<long long>(dataset.image_size),
      static_cast<long long>(length.reconstruction_steps), at::get_num_threads(), "level",
      "parameters", "memory (MiB)", "seconds a step");
  for (const auto& [name, level] : levels.items())
    std::printf("%-10s %14lld %16.0f %16.3f\n", name.c_str(), level["parameters"].get<long long>(),
                level["peak_mib"].get<double>(), level["seconds_per_step"].get<double>());
  std::printf(
      "\nabout %.3f s a reconstruction step with everything above it, %.1f hours in all; the "
      "process has used %.0f MiB\n",
      result["seconds_per_reconstruction_step"].get<double>(), result["hours"].get<double>(),
      peak_mib());
  return 0;
}

// What run.json says of a run before its first step.
Json described(const Arguments& arguments, const Settings& settings, const Dataset& dataset,
               const Models& models, const Length& length) {
  return {{"name", folder_name(arguments.out)},
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
          {"image_size", dataset.image_size},
          {"channels", dataset.train->channels()},
          {"classes", dataset.train->classes().size()},
          {"class_names", dataset.train->classes()},
          {"mean", dataset.mean},
          {"deviation", dataset.deviation},
          {"notices", dataset.notices},
          {"parameters", parameter_counts(models)},
          {"seconds", 0.0}};
}

// The same of a run that goes on: it keeps its beginning, and says what is not as before.
Json described_anew(Json record, const Json& before, const RunDirectory& directory, int64_t taken,
                    const std::vector<std::string>& changed) {
  Json part = {{"time", record["started"]},
               {"step", taken},
               {"command", record["command"]},
               {"changed", changed}};
  for (const char* key : {"name", "preset", "command", "started", "encoder"})
    if (before.contains(key)) record[key] = before[key];
  // A part that was killed has left its time in the log only.
  record["seconds"] = before.value("seconds", 0.0) +
                      directory.logged_seconds(before.value("steps_taken", int64_t{0}), taken,
                                               [](const std::string& bad) {
                                                 std::fprintf(stderr, "warning: %s\n", bad.c_str());
                                               });
  record["steps_taken"] = taken;
  record["resumed"] = before.value("resumed", Json::array());
  record["resumed"].push_back(std::move(part));
  return record;
}

mlo::State checkpoint_of(const RunDirectory& directory) {
  try {
    return mlo::read_checkpoint(directory.checkpoint());
  } catch (const mlo::CheckpointError& error) {
    throw mlo::CheckpointError(
        std::string(error.what()) + " (a run keeps its last checkpoint only: without a copy of " +
        directory.path.string() + " it must be trained anew, with another --out)");
  }
}

// Puts a checkpoint's state into the engine, if it is of the same run; what is not the same and
// allowed comes back, in sentences.
std::vector<std::string> go_on(const Arguments& arguments, const Settings& settings,
                               const Dataset& dataset, const mlo::State& state,
                               mlo::Engine& engine) {
  std::vector<std::string> changed;
  const Length length = run_length(settings, dataset);
  const int64_t taken = state.integer("engine/steps");
  if (const auto stamp = stamp_of(state)) {
    changed = compare(*stamp, {settings, dataset.fingerprint()}, arguments.allowed);
    const Length before = run_length(stamp->settings, dataset);
    const std::string text =
        "run.reconstruction_steps: " + std::to_string(before.reconstruction_steps) + " → " +
        std::to_string(length.reconstruction_steps);
    if (length.reconstruction_steps > before.reconstruction_steps) {
      changed.push_back(text + ": schedules of the learning rate reach over the new length");
    } else if (length.reconstruction_steps < before.reconstruction_steps) {
      if (std::find(arguments.allowed.begin(), arguments.allowed.end(),
                    "run.reconstruction_steps") == arguments.allowed.end())
        throw mlo::ConfigError(
            "the run was to be longer (then → now): " + text +
            "; to end it earlier on purpose: --allow-changed run.reconstruction_steps");
      changed.push_back(text);
    }
  } else {
    changed.emplace_back(
        "the checkpoint does not say what it was made with: settings and images are taken as "
        "given");
  }
  if (length.steps() < taken)
    throw mlo::ConfigError(
        "run.reconstruction_steps = " + std::to_string(length.reconstruction_steps) + ", but " +
        std::to_string(taken * length.steps_each) + " have been taken; give at least as many");
  // The engine compares once more, by its own names: what was allowed here may be of any of them.
  mlo::LoadOptions load;
  if (!changed.empty()) {
    load.allow_changed = engine.level_names();
    load.allow_changed.emplace_back("engine");
  }
  engine.load_state(state, load);
  for (const std::string& line : changed) std::fprintf(stderr, "going on with: %s\n", line.c_str());
  return changed;
}

// A directory for the run that is locked, and is removed again if it was made here and nothing came
// of it.
class Place {
 public:
  Place(const RunDirectory& directory, bool resume)
      : path_(directory.path), made_(!resume && directory.create()) {
    lock_.emplace(path_);
    if (!resume) directory.create();  // another process may have been faster
  }
  ~Place() {
    lock_.reset();
    std::error_code ignored;
    if (made_) std::filesystem::remove(path_, ignored);  // only what is empty
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  const std::filesystem::path path_;
  const bool made_;
  std::optional<RunLock> lock_;
};

int pretrain(const Arguments& arguments) {
  const RunDirectory directory{arguments.out};
  if (arguments.out.empty() && !arguments.dry_run)
    throw mlo::ConfigError("--out is missing: give the directory that the run is to be kept in");
  if (!arguments.resume && !arguments.allowed.empty())
    throw mlo::ConfigError("--allow-changed is about a run that goes on; it needs --resume");
  for (const std::string& key : arguments.allowed) check_key(key, "--allow-changed ");
  Settings settings =
      arguments.choices.settings(arguments.resume ? directory.settings() : preset("micro"));
  prepare(settings);
  if (arguments.dry_run) return dry_run(settings, arguments.json);

  const bool goes_on = arguments.resume && std::filesystem::exists(directory.checkpoint());
  if (arguments.resume && !goes_on && std::filesystem::exists(directory.model()))
    throw mlo::ConfigError(
        directory.path.string() +
        " has weights and no checkpoint.mlo to go on from: weights that were imported are for " +
        "`mlomae evaluate`, not for training");
  const Dataset dataset = opened(settings);
  dataset.resolve(settings);
  const Models models = make_models(settings, dataset);
  const Length length = run_length(settings, dataset);
  const Place place(directory, arguments.resume);
  check_regular(directory.log(), "remove it");
  const auto engine = make_engine(settings, dataset, models, knn_monitor(settings, dataset, models),
                                  {.checkpoint = directory.checkpoint()});
  engine->build();  // whatever is wrong shows before there is a run
  std::vector<std::string> changed;
  if (goes_on) changed = go_on(arguments, settings, dataset, checkpoint_of(directory), *engine);
  const int64_t before = engine->steps_taken();

  directory.write_settings(settings);
  Json record = described(arguments, settings, dataset, models, length);
  const Json earlier =
      goes_on && std::filesystem::exists(directory.record()) ? read_record(directory.path) : Json();
  if (earlier.is_object())
    record = described_anew(std::move(record), earlier, directory, before, changed);
  directory.write_record(record);

  const int64_t images_per_step =
      settings.pretrain.batch * settings.pretrain.accumulate * length.steps_each;
  engine->add(mlo::progress_bar(
      stderr, {.per_step = static_cast<double>(images_per_step), .unit = "images"}));
  if (::isatty(::fileno(stderr)) != 1)
    engine->add(std::make_shared<Warnings>());  // a terminal's progress bar says them itself
  engine->add(mlo::json_lines(directory.log(), settings.run.log_every));
  engine->add(mlo::tensorboard(directory.tensorboard(), settings.run.log_every));
  engine->add(snapshots(settings, dataset, models, directory));

  const Stoppable stoppable(*engine);
  const mlo::RunSummary summary = engine->run();

  directory.write_models(models);
  record["encoder"] = checksum(models.mae);  // which scores are of it
  record["finished"] = now();
  record["reason"] = mlo::to_string(summary.reason);
  record["steps_taken"] = summary.steps;
  record["seconds"] = record.value("seconds", 0.0) + summary.seconds;
  const bool took_none =
      summary.steps == before && earlier.contains("images_per_second");  // it was finished already
  record["images_per_second"] =
      took_none ? earlier["images_per_second"].get<double>()
                : static_cast<double>((summary.steps - before) * images_per_step) /
                      std::max(summary.seconds, 1e-9);
  record["peak_mib"] =
      took_none && earlier.contains("peak_mib") ? earlier["peak_mib"].get<double>() : peak_mib();
  directory.write_record(record);

  if (arguments.json) {
    Json line = {{"run", arguments.out.string()},
                 {"method", settings.run.method},
                 {"reason", record["reason"]},
                 {"reconstruction_steps", summary.steps * length.steps_each},
                 {"seconds", summary.seconds},
                 {"images_per_second", record["images_per_second"]},
                 {"peak_mib", record["peak_mib"]},
                 {"notices", dataset.notices},
                 {"losses", Json::object()}};
    for (const std::string& level : engine->level_names())
      line["losses"][level] = engine->loss(level);
    std::printf("%s\n", json_text(line).c_str());
  } else {
    std::printf("%s: %lld reconstruction steps in %.0f s (%.0f images/s, %.0f MiB)\n",
                arguments.out.string().c_str(),
                static_cast<long long>(summary.steps * length.steps_each), summary.seconds,
                record["images_per_second"].get<double>(), peak_mib());
  }
  if (summary.reason == mlo::RunSummary::Reason::steps) return 0;
  std::fprintf(stderr, "stopped and saved; `mlomae pretrain --out %s --resume` goes on\n",
               arguments.out.string().c_str());
  return 3;
}

}  // namespace

void add_pretrain(CLI::App& app, Action& chosen) {
  CLI::App* command =
      app.add_subcommand("pretrain", "train an encoder, by MLO-MAE or by a baseline");
  const auto arguments = std::make_shared<Arguments>();
  arguments->choices.add_to(*command, /*with_method=*/true);
  command->add_option("--out", arguments->out,
                      "directory for the run: settings, logs, checkpoints, pictures, weights");
  command->add_flag(
      "--resume", arguments->resume,
      "go on with the run in --out; with other settings only if they are allowed to be others. A "
      "larger "
      "run.reconstruction_steps makes a finished run longer; --data says where its images are now");
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
