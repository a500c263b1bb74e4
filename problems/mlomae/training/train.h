#pragma once

#include "mlomae/run/run_directory.h"
#include "mlomae/training/pretraining.h"

#include <mlo/callback.h>
#include <mlo/run_summary.h>
#include <nlohmann/json.hpp>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace mlomae {

/// A run that is to be trained, or gone on with.
struct RunRequest {
  RunDirectory directory;
  Settings settings;
  std::string preset;                ///< that the settings come from; empty: none
  bool resume = false;               ///< go on from the directory's checkpoint, if there is one
  std::vector<std::string> allowed;  ///< keys of settings that may differ from the checkpoint's
};

struct RunOutcome {
  mlo::RunSummary summary;
  int64_t reconstruction_steps = 0;  ///< in all
  nlohmann::ordered_json record;     ///< run.json
  nlohmann::ordered_json losses;     ///< the last ones, by level
};

/// Images that a step of the engine's top level takes, of the first level.
int64_t images_per_step(const Settings& settings, const Dataset& dataset);

/// Trains the run, and leaves all of it in its directory. What asks the process to end (Ctrl-C,
/// kill, a terminal that is closed) ends the run after its step. `watchers` are added to the
/// engine; `say` is given what people should know ("going on with: …", "warning: …").
RunOutcome train(const RunRequest& request, const Dataset& dataset,
                 const std::vector<std::shared_ptr<mlo::Callback>>& watchers,
                 const std::function<void(const std::string&)>& say);

}  // namespace mlomae
