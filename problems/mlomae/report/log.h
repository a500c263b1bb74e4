#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace mlomae {

/// A line of log.jsonl; what it does not have is empty.
struct LogEntry {
  std::string event;
  int64_t step = 0;
  double seconds = 0.0;
  std::vector<std::pair<std::string, double>> losses, metrics;  ///< those that are numbers
};

/// Reads a run's log in turn, to its last whole line; one that is not there is empty. Text that is
/// no JSON is passed over: a run that is killed leaves half a line, and goes on after it. `bad`
/// hears of lines that are JSON and not of a log ("FILE, line 12: …").
void read_log(const std::filesystem::path& file, const std::function<void(const LogEntry&)>& use,
              const std::function<void(const std::string&)>& bad);

}  // namespace mlomae
