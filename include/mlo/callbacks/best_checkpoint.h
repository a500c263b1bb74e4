#pragma once

#include "mlo/callback.h"

#include <filesystem>
#include <memory>

#pragma GCC visibility push(default)
namespace mlo {

/// Saves a checkpoint whenever a validation is the best so far by the early-stopping metric.
/// Refuses to start (ConfigError) in a run without validations or without that metric.
std::unique_ptr<Callback> best_checkpoint(std::filesystem::path file);

}  // namespace mlo
#pragma GCC visibility pop
