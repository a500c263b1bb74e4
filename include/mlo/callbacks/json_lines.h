#pragma once

#include "mlo/callback.h"

#include <cstdint>
#include <filesystem>
#include <memory>

#pragma GCC visibility push(default)
namespace mlo {

/// One JSON object a line: {"event": "start"|"step"|"validation"|"warning"|"stop", …}, appended; a
/// step every `every` steps. Numbers that are not finite are null. A run that is resumed repeats
/// the steps after its checkpoint: the later line counts.
std::unique_ptr<Callback> json_lines(std::filesystem::path file, int64_t every = 1);

}  // namespace mlo
#pragma GCC visibility pop
