#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace mlo {

/// What a progress bar shows.
struct Progress {
  int64_t step = 0;
  int64_t steps = 0;
  double seconds_left = -1;  ///< negative or not a number: unknown
  double rate = -1;          ///< units a second; negative or not finite: unknown
  std::string unit = {};     ///< empty: no rate is shown
  std::vector<std::pair<std::string, double>> losses = {};
};

/// "[=====>    ] 120/3000  4%  eta 1:23  811 images/s  pretrain 0.413 head 2.11", at most `columns`
/// wide: what does not fit is left out from the end, and the bar takes what is over.
std::string progress_line(const Progress& progress, int columns);

/// Seconds for each step of late: an average that forgets what is more than some ten seconds old.
class RecentRate {
 public:
  /// `step` had been taken at `seconds`; both never decrease.
  void add(int64_t step, double seconds);
  /// Not a number before the first step.
  double seconds_per_step() const { return seconds_ / steps_; }

 private:
  int64_t last_step_ = 0;
  double last_seconds_ = 0.0;
  bool started_ = false;
  double steps_ = 0.0;  // both discounted alike, so that their quotient is a weighted mean
  double seconds_ = 0.0;
};

}  // namespace mlo
