#pragma once

#include "mlomae/data/dataset.h"
#include "mlomae/levels/masking.h"
#include "mlomae/levels/reconstruct.h"
#include "mlomae/models/models.h"

#include <mlo/engine.h>

#include <filesystem>
#include <memory>

namespace mlomae {

MaskerOptions masker_options(const Settings& settings, const ModelOptions& model);
/// Initialized from `run.seed` alone, whatever was drawn before.
Models make_models(const Settings& settings, const Dataset& dataset);

/// Typed from the settings; `mae` and `u-mae` mask uniformly.
MaskingOptions masking_options(const Settings& settings);

/// How long a run is.
struct Length {
  int64_t reconstruction_steps = 0;
  int64_t steps_each = 1;  ///< reconstruction steps for each step of the engine's top level
  int64_t steps() const { return reconstruction_steps / steps_each; }
};
/// Throws mlo::ConfigError for a number of reconstruction steps that `pretrain.unroll` does not
/// divide.
Length run_length(const Settings& settings, const Dataset& dataset);

struct EngineFiles {
  std::filesystem::path checkpoint = {};  ///< empty: none
  bool profile = false;
};
/// The levels "pretrain", "head", "masker" of the method (mlo-mae: all three; blo-mae: without
/// "head"; else the first only).
std::unique_ptr<mlo::Engine> make_engine(const Settings& settings, const Dataset& dataset,
                                         const Models& models, Monitor monitor,
                                         const EngineFiles& files);

}  // namespace mlomae
