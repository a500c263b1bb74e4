#pragma once

#include "mlomae/data/dataset.h"
#include "mlomae/run/run_directory.h"

#include <mlo/engine.h>
#include <mlo/state.h>

#include <string>
#include <vector>

namespace mlomae {

/// A run's last checkpoint. Throws mlo::CheckpointError, with the cure, for one that is damaged.
mlo::State checkpoint_of(const RunDirectory& directory);

/// Puts a checkpoint's state into the engine, if it is of the same run: settings that decide what
/// is trained and differ throw mlo::ConfigError unless their keys are `allowed`. Returns a sentence
/// for each difference that was allowed.
std::vector<std::string> go_on(const mlo::State& state, const Settings& settings,
                               const Dataset& dataset, const std::vector<std::string>& allowed,
                               mlo::Engine& engine);

}  // namespace mlomae
