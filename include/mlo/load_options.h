#pragma once

#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// How the engine that goes on with a run may differ from the one that saved it.
///
/// A state holds the settings of its run, each under a name. Loading compares them with the
/// engine's own and throws one CheckpointError that names every difference, unless it is allowed
/// here. Then what the loading engine was given counts:
///
///     engine.seed               of the random streams from here on
///     engine.early_stopping     metric and mode; the best value and the count of validations begin
///     anew LEVEL.optimizer           its class; its moments begin anew LEVEL.optimizer.groups
///     which parameters are in which group; the moments begin anew LEVEL.optimizer.OPTION    lr,
///     betas, eps, weight_decay, momentum, … as they were given (lr: before the schedule's factor)
///     LEVEL.schedule            whether there is one, and its factor at the last step taken
///     LEVEL.method              the name of its best response; what it remembers (warm starts)
///     begins anew LEVEL.data                `BatchSource::fingerprint`; where the saved position
///     does not fit (another number of rows or
///                               batches), the data goes on from where the loading engine's stands
///     LEVEL.reads, LEVEL.constant, LEVEL.below, LEVEL.top, LEVEL.unroll, LEVEL.warmup_steps,
///     LEVEL.accumulate, LEVEL.clip_norm, LEVEL.precision
///
/// How long a run lasts and what is written on the way (the other EngineOptions) may always differ.
/// A state of version 1 has no settings: nothing is compared, and the saved seed and optimizers'
/// options count.
struct LoadOptions {
  /// Names from above. One also stands for all that begin with it and a dot: "fit.optimizer" for
  /// the class and every option, "fit" for everything of that level. A name that is no setting of
  /// the two runs throws ConfigError.
  std::vector<std::string> allow_changed = {};
};

}  // namespace mlo
#pragma GCC visibility pop
