#pragma once

#include "mlomae/report/group_runs.h"

#include <filesystem>
#include <string>
#include <vector>

namespace mlomae {

/// One HTML file that needs nothing else: table, curves, masks, reconstructions, settings. Replaces
/// `file` atomically.
void write_report(const std::vector<Run>& runs, const std::filesystem::path& file,
                  const std::string& title);

}  // namespace mlomae
