#include "mlomae/training/train.h"

#include "mlomae/config/json_text.h"
#include "mlomae/evaluation/classifier.h"
#include "mlomae/message.h"
#include "mlomae/run/lock.h"
#include "mlomae/run/record.h"
#include "mlomae/training/describe.h"
#include "mlomae/training/monitor.h"
#include "mlomae/training/resume.h"

#include <mlo/callbacks/json_lines.h>
#include <mlo/callbacks/tensorboard.h>

#include <csignal>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

mlo::Engine* running = nullptr;
extern "C" void on_signal(int) {
  if (running) running->request_stop();
}

// While it lives, what asks a process to end ends the run after its step instead.
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

}  // namespace

int64_t images_per_step(const Settings& settings, const Dataset& dataset) {
  return settings.pretrain.batch * settings.pretrain.accumulate *
         run_length(settings, dataset).steps_each;
}

RunOutcome train(const RunRequest& request, const Dataset& dataset,
                 const std::vector<std::shared_ptr<mlo::Callback>>& watchers,
                 const std::function<void(const std::string&)>& say) {
  const auto& [directory, settings, preset, resume, allowed] = request;
  const bool goes_on = resume && std::filesystem::exists(directory.checkpoint());
  const Models models = make_models(settings, dataset);
  const Length length = run_length(settings, dataset);
  const RunPlace place(directory, resume);
  check_regular(directory.log(), "remove it");
  const auto engine = make_engine(settings, dataset, models, monitor_of(settings, dataset, models),
                                  {.checkpoint = directory.checkpoint()});
  engine->build();  // whatever is wrong shows before there is a run
  std::vector<std::string> changed;
  if (goes_on) changed = go_on(checkpoint_of(directory), settings, dataset, allowed, *engine);
  for (const std::string& line : changed) say("going on with: " + line);
  const int64_t before = engine->steps_taken();

  directory.write_settings(settings);
  RunOutcome outcome;
  Json& record = outcome.record;
  record = described(directory, preset, settings, dataset, models);
  const Json earlier =
      goes_on && std::filesystem::exists(directory.record()) ? read_record(directory.path) : Json();
  if (earlier.is_object())
    record = described_anew(std::move(record), earlier, directory, before, changed,
                            [&](const std::string& bad) { say("warning: " + bad); });
  directory.write_record(record);

  for (const auto& watcher : watchers) engine->add(watcher);
  engine->add(mlo::json_lines(directory.log(), settings.run.log_every));
  engine->add(mlo::tensorboard(directory.tensorboard(), settings.run.log_every));
  engine->add(snapshots(settings, dataset, models, directory));
  const Stoppable stoppable(*engine);
  outcome.summary = engine->run();

  directory.write_models(models);
  record["encoder"] = checksum(models.mae);  // which scores are of it
  describe_end(record, earlier, outcome.summary, outcome.summary.steps - before,
               images_per_step(settings, dataset));
  directory.write_record(record);
  outcome.reconstruction_steps = outcome.summary.steps * length.steps_each;
  for (const std::string& level : engine->level_names())
    outcome.losses[level] = engine->loss(level);
  return outcome;
}

}  // namespace mlomae
