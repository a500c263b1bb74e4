#pragma once

#include "mlo/engine.h"

#include <cstdint>
#include <string>
#include <vector>

namespace mlo {

struct CheckOptions {
  /// The level whose total derivative is checked; empty: the top level.
  std::string level = {};
  /// Directions in which differences are taken. All coordinates where the level has no more parameters than this, else
  /// that many random directions.
  int64_t directions = 64;
  /// Step of the central differences, relative to the norm of the level's parameters. 0: 1e-5 in float64, 1e-2 in
  /// float32.
  double radius = 0.0;
  /// Own steps of every level below when it is solved anew; 0: that comparison is left out.
  int64_t resolve_steps = 0;
  uint64_t seed = 0;

  void validate() const;
};

/// How far a hypergradient is from another way of computing it.
struct Comparison {
  double relative_error = 0.0;  ///< ‖g − r‖ / ‖r‖ over the directions
  double cosine = 0.0;          ///< g·r / ‖g‖‖r‖
};

struct CheckReport {
  std::string level;
  int64_t directions = 0;
  bool exact_directions = false;  ///< all coordinates were differenced
  Comparison steps_taken;         ///< against differentiation of the steps that the levels below really took
  std::optional<Comparison> resolved;  ///< against the levels below solved anew
  struct Analytic {
    std::string level;
    Comparison product;               ///< its `product` against automatic differentiation, own and mixed together
    std::optional<Comparison> gradient;  ///< its `gradient`, if it has one
  };
  std::vector<Analytic> analytic;  ///< one for each level with AnalyticDerivatives
  std::string to_string() const;
};

/// Is the hypergradient right? Takes the configured total derivative of a level, and compares it (1) with central
/// differences of that level's loss through the very steps that the levels below took, replayed with the same
/// batches and random draws from the same start, and (2) on request with differences of the levels below solved anew.
/// One-step and unrolled methods should agree with (1) (one-step at unroll 1), implicit ones with (2) once the lower
/// levels have converged. The engine is left exactly as it was.
CheckReport check_hypergradient(Engine& engine, const CheckOptions& options = {});

}  // namespace mlo
