#pragma once

#include "mlomae/report/read_run.h"

#include <map>
#include <string>
#include <vector>

namespace mlomae {

/// A number over the seeds of a group.
struct Spread {
  double mean = 0.0;
  double deviation = 0.0;   ///< of the sample over the seeds; 0 with one run
  double test_error = 0.0;  ///< of a score: its standard error from the number of test images alone
  int64_t runs = 0;

  /// What the mean may be off by: deviation/√runs, with one run `test_error`.
  double standard_error() const;
};

/// Runs of the same data, method and settings, but for the seed. Of several with one seed the
/// first: the others are no further seeds, and their spread would say nothing.
struct Group {
  std::string data, method;
  std::vector<std::size_t> runs;
  std::vector<std::string> notes;  ///< of the runs, and about those that are left out
  /// settings that most runs on these data do not have
  std::vector<std::pair<std::string, std::string>> differing;
  std::map<std::string, Spread> scores;         ///< "linear-probe class", …: accuracy
  Spread seconds, images_per_second, peak_mib;  ///< of the runs that have ended
};
std::vector<Group> grouped(const std::vector<Run>& runs);

/// A run's settings: value by "section.name".
std::map<std::string, std::string> setting_texts(const Run& run);

/// Scores that no other one of the same column is better than by more than both standard errors
/// together, √(e² + e′²); none where that is all of them.
std::vector<bool> winners(const std::vector<Spread>& column);

/// The table of the report as JSON: of each number its mean and "runs", with several "deviation"
/// over the seeds; of scores also "test_error"; and "notes" about what was left out.
nlohmann::ordered_json report_as_json(const std::vector<Run>& runs);

}  // namespace mlomae
