#pragma once

#include "mlomae/run/score.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace mlomae {

/// A run directory, read back.
struct Run {
  std::filesystem::path path;
  nlohmann::ordered_json config, info;  ///< config.json, run.json
  /// "loss/level", "level.metric": value by reconstruction step
  std::map<std::string, std::map<int64_t, double>> series;
  std::vector<Score> scores;                     ///< of the encoder that the run has now
  std::vector<std::string> notes;                ///< sentences about what was left out
  std::vector<std::filesystem::path> snapshots;  ///< oldest first

  std::string name() const { return info.value("name", path.filename().string()); }
  std::string method() const { return info.value("method", ""); }
  std::string data() const { return info.value("data", ""); }
};

/// Throws mlo::Error naming file and cure. A run that is going on, or was killed in the middle of a
/// line of its log, is read as far as it got.
Run read_run(const std::filesystem::path& path);

/// Of several, each directory once, by whatever path it is given.
std::vector<Run> read_runs(const std::vector<std::filesystem::path>& paths);

}  // namespace mlomae
