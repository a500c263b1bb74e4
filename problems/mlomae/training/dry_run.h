#pragma once

#include "mlomae/data/dataset.h"

#include <nlohmann/json.hpp>

namespace mlomae {

/// What a run will need, by taking three steps of it: {"levels": {level: {"parameters", "peak_mib",
/// "seconds_per_step", …}}, "hours", "peak_mib", …}.
nlohmann::ordered_json dry_run(const Settings& settings, const Dataset& dataset);

}  // namespace mlomae
