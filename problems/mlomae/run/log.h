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

/// Lines that are no JSON and that no kill has left.
struct BrokenLines {
  int64_t count = 0, first = 0;  ///< first: the number of its line, from 1
};

/// Reads a run's log in turn, to its last whole line; one that is not there is empty. A run that is
/// killed leaves half a line, and goes on after it: a line that is no JSON is passed over where it
/// is the last one, or the next one says that a run starts; others are counted. `bad` hears of
/// lines that are JSON and not of a log ("FILE, line 12: …"). Throws mlo::ConfigError for what is
/// no regular file.
BrokenLines read_log(const std::filesystem::path& file,
                     const std::function<void(const LogEntry&)>& use,
                     const std::function<void(const std::string&)>& bad);

}  // namespace mlomae
