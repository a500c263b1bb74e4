#pragma once

#include "mlomae/report/read_run.h"

#include <filesystem>
#include <string>
#include <vector>

namespace mlomae {

/// A number over the seeds of a group.
struct Spread {
  double mean = 0.0;
  double deviation = 0.0;  ///< of the sample; with one run the score's own standard error
  int64_t runs = 0;
};

/// Runs of the same data, method and settings, but for the seed.
struct Group {
  std::string data, method;
  std::vector<std::size_t> runs;
  std::vector<std::pair<std::string, std::string>> differing;  ///< settings that most runs on these data do not have
  std::map<std::string, Spread> scores;                        ///< "linear-probe class", …: accuracy
  Spread seconds, images_per_second, peak_mib;                 ///< of the runs that have ended
};
std::vector<Group> grouped(const std::vector<Run>& runs);

/// The table of the report as JSON.
nlohmann::ordered_json report_as_json(const std::vector<Run>& runs);

/// One HTML file that needs nothing else: table, curves, masks, reconstructions, settings. Replaces `file` atomically.
void write_report(const std::vector<Run>& runs, const std::filesystem::path& file, const std::string& title);

}  // namespace mlomae
