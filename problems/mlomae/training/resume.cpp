#include "mlomae/training/resume.h"

#include "mlomae/config/changes.h"
#include "mlomae/message.h"
#include "mlomae/run/stamp.h"
#include "mlomae/training/pretraining.h"

#include <mlo/io/checkpoint.h>

#include <algorithm>

namespace mlomae {
namespace {

// A run may become longer, and shorter only on purpose.
void compare_length(int64_t before, int64_t now, const std::vector<std::string>& allowed,
                    std::vector<std::string>& changed) {
  const std::string text = message("run.reconstruction_steps: {} → {}", before, now);
  if (now > before) {
    changed.push_back(text + ": schedules of the learning rate reach over the new length");
  } else if (now < before) {
    if (std::find(allowed.begin(), allowed.end(), "run.reconstruction_steps") == allowed.end())
      refuse(
          "the run was to be longer (then → now): {}; to end it earlier on purpose: "
          "--allow-changed run.reconstruction_steps",
          text);
    changed.push_back(text);
  }
}

}  // namespace

mlo::State checkpoint_of(const RunDirectory& directory) {
  try {
    return mlo::read_checkpoint(directory.checkpoint());
  } catch (const mlo::CheckpointError& error) {
    refuse<mlo::CheckpointError>(
        "{} (a run keeps its last checkpoint only: without a copy of {} it must be trained anew, "
        "with another --out)",
        error.what(), directory.path.string());
  }
}

std::vector<std::string> go_on(const mlo::State& state, const Settings& settings,
                               const Dataset& dataset, const std::vector<std::string>& allowed,
                               mlo::Engine& engine) {
  std::vector<std::string> changed;
  const Length length = run_length(settings, dataset);
  std::vector<Change> settings_changed;  // but for the length
  if (const auto stamp = stamp_of(state)) {
    changed = compare(*stamp, {settings, dataset.fingerprint()}, allowed);
    settings_changed = changes(stamp->settings, settings);
    compare_length(run_length(stamp->settings, dataset).reconstruction_steps,
                   length.reconstruction_steps, allowed, changed);
  } else {
    changed.emplace_back(
        "the checkpoint does not say what it was made with: settings and images are taken as "
        "given");
  }
  const int64_t taken = state.integer("engine/steps");
  require(length.steps() >= taken,
          "run.reconstruction_steps = {}, but {} have been taken; give at least as many",
          length.reconstruction_steps, taken * length.steps_each);
  if (length.steps() == taken && !settings_changed.empty())
    refuse(
        "the run is finished, and no step would be taken with {} = {} (it was {}); give a larger "
        "run.reconstruction_steps",
        settings_changed.front().key, settings_changed.front().after,
        settings_changed.front().before);
  // The engine compares once more, by its own names: what was allowed here may be of any of them.
  mlo::LoadOptions load;
  if (!changed.empty()) {
    load.allow_changed = engine.level_names();
    load.allow_changed.emplace_back("engine");
  }
  engine.load_state(state, load);
  return changed;
}

}  // namespace mlomae
