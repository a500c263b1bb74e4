#pragma once

#include "mlo/engine.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

struct CheckOptions {
  /// The level whose total derivative is checked; empty: the top level.
  std::string level = {};
  /// Directions in which differences are taken, shared out among the level's tensors: every
  /// coordinate of a tensor that has no more than its share, else that many random directions in
  /// it. Each costs at least four evaluations of the level's loss (a few more are for its rounding
  /// and for small tensors), and before each evaluation the steps of the levels below are taken
  /// again.
  int64_t directions = 64;
  /// Step ρ of the central differences, relative to the size of what is shifted: a coordinate's
  /// absolute value or a tensor's root mean square, but at least 1 (a small tensor's own size only
  /// where steps of that size give better differences). 0: chosen for each direction, where the
  /// differences' own error is smallest, from 1e-3 on (5e-2 if any level is in float32).
  double radius = 0.0;
  /// Own steps of every responding level when it is solved anew; 0: that comparison is left out. It
  /// costs at least 4 · directions · resolve_steps own steps of each of them.
  int64_t resolve_steps = 0;
  uint64_t seed = 0;

  void validate() const;
};

/// Whether a hypergradient is right to a tolerance, as far as the differences it is held against
/// can tell.
enum class Verdict {
  agrees,
  disagrees,
  cannot_tell  ///< the differences' own error is larger than what is left of the tolerance
};
const char* to_string(Verdict verdict);

/// How far a hypergradient g is from another way of computing it, r. All norms are over the
/// directions compared.
struct Comparison {
  double relative_error = 0.0;  ///< ‖g − r‖ / ‖r‖
  double cosine = 0.0;          ///< g·r / ‖g‖‖r‖
  /// estimated error of r itself, relative to ‖r‖; 0 for automatic differentiation
  double uncertainty = 0.0;
  double norm = 0.0;            ///< ‖g‖
  double reference_norm = 0.0;  ///< ‖r‖

  /// Where g and r differ most.
  struct Coordinate {
    std::string parameter;  ///< of the level; several, joined by ", ", where a direction goes
                            ///< through several
    /// of the element; empty for a random direction in the parameter, and for a scalar
    std::vector<int64_t> index;
    double value = 0.0;             ///< of g
    double reference = 0.0;         ///< of r
    std::string to_string() const;  ///< "'weight'[2, 0]: 0.31, differences 0.3"
  };
  std::optional<Coordinate> worst;  ///< nothing if g = r

  /// agrees: relative_error + uncertainty ≤ tolerance. disagrees: relative_error − uncertainty >
  /// tolerance. Throws ConfigError unless the tolerance is positive.
  Verdict verdict(double tolerance) const;
  bool agrees(double tolerance) const { return verdict(tolerance) == Verdict::agrees; }
};

struct CheckReport {
  std::string level;
  int64_t directions = 0;
  bool exact_directions = false;  ///< all coordinates were differenced
  /// against differentiation of the steps that the levels below really took
  Comparison steps_taken;
  /// Against the levels below solved anew. Its uncertainty contains what they still lacked
  /// (`Solved::missing`).
  std::optional<Comparison> resolved;

  /// How well a level was solved anew.
  struct Solved {
    std::string level;
    /// ‖∇L_k‖ before the first step, root mean square over the evaluations
    double gradient_before = 0.0;
    double gradient_after = 0.0;  ///< ... and after the last
    /// Part of its response to the upper level that the steps did not take: how much of what the
    /// shift does to ∇L_k is left after the last step. 0 at the optimum; 1 has not moved.
    double missing = 0.0;
  };
  std::vector<Solved> solved;   ///< in the order in which they were solved
  std::string resolve_failure;  ///< why there is no `resolved` though it was asked for;
                                ///< `steps_taken` stands

  struct Analytic {
    std::string level;
    /// its `product` against automatic differentiation, own and mixed together
    Comparison product;
    std::optional<Comparison> gradient;  ///< its `gradient`, if it has one
  };
  std::vector<Analytic> analytic;  ///< one for each level with AnalyticDerivatives

  int64_t evaluations = 0;  ///< of the level's loss
  int64_t own_steps = 0;    ///< that the levels below took for them

  /// Of `resolved` if it was asked for, else of `steps_taken`, together with every analytic
  /// derivative: disagrees if one does, agrees if all do. A resolve that failed cannot tell.
  Verdict verdict(double tolerance) const;
  bool agrees(double tolerance) const { return verdict(tolerance) == Verdict::agrees; }

  /// In words, with what to do next.
  std::string to_string() const;
  /// The same as one JSON object, with these names. What is not finite is null.
  std::string to_json() const;
};

/// Is the hypergradient right? Takes the configured total derivative of a level, and compares it
/// (1) with central differences of that level's loss through the very steps that the levels below
/// took, replayed with the same batches and random draws from the same start, and (2) on request
/// with differences of the levels below solved anew. One-step and unrolled methods should agree
/// with (1) (one-step at unroll 1), implicit ones with (2) once the lower levels have converged.
///
/// The engine is left exactly as it was, also if a loss throws. What cannot load what it has saved
/// (a stream) is found before anything is changed, and refused with its own CheckpointError. If the
/// state still cannot be put back, the exception is passed on and every later call of the engine
/// that would go on from there throws an Error.
CheckReport check_hypergradient(Engine& engine, const CheckOptions& options = {});

}  // namespace mlo
#pragma GCC visibility pop
