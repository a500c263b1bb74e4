#pragma once

#include "mlo/hypergradient/solver.h"
#include "text.h"

#include <cmath>
#include <string>

namespace mlo {

/// The products' estimated relative error into the summary, with a warning if it is large and
/// nothing graver is to be said.
inline void note_error(SolveSummary& summary, double error, const std::string& level) {
  constexpr double kLarge = 0.1;
  summary.error = error;
  if (error <= kLarge || !summary.warning.empty()) return;
  summary.warning = message(
      "level {}: the products of its finite differences are known to about {} % only, because of "
      "rounding or of kinks within their radius; use an exact method for this level "
      "(mlo::one_step()), keep its parameters in float64, or give "
      "FiniteDifferenceOptions::constant",
      quoted(level), std::ceil(100.0 * error));
}

}  // namespace mlo
