#pragma once

#include "mlo/callback.h"

#include <cstdint>
#include <filesystem>
#include <memory>

#pragma GCC visibility push(default)
namespace mlo {

/// Losses ("loss/level") and their metrics ("level/metric") by step of the top level, every `every`
/// steps; validations ("validation/level/metric") as they come.
std::unique_ptr<Callback> tensorboard(std::filesystem::path folder, int64_t every = 1);

}  // namespace mlo
#pragma GCC visibility pop
