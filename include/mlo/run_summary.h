#pragma once

#include "mlo/counters.h"
#include "mlo/hypergradient/solver.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// How a run ended, and what each level has done.
struct RunSummary {
  enum class Reason { steps, time, request, early_stopping };
  struct Level {
    std::string name;
    /// the last one; NaN if it has not stepped
    double loss = std::numeric_limits<double>::quiet_NaN();
    Counters counters = {};   ///< over resumed runs, too
    SolveSummary solve = {};  ///< of the method's last visit
  };
  Reason reason = Reason::steps;
  int64_t steps = 0;               ///< of the top level, in all
  double seconds = 0.0;            ///< of this run
  std::vector<Level> levels = {};  ///< lowest first

  /// One line on the whole, then one a level, the top level first: last loss, steps, passes,
  /// products, seconds under EngineOptions::profile, and the last solve of its method where there
  /// was one; for people.
  std::string to_string() const;
};
const char* to_string(RunSummary::Reason reason);

}  // namespace mlo
#pragma GCC visibility pop
