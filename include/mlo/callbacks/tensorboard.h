#pragma once

#include "mlo/callback.h"

#include <cstdint>
#include <filesystem>
#include <memory>

namespace [[gnu::visibility("default")]] mlo {

/// Losses ("loss/level"), their metrics and validations ("level/metric") by step of the top level,
/// every `every` steps.
std::unique_ptr<Callback> tensorboard(std::filesystem::path folder, int64_t every = 1);

}  // namespace mlo
