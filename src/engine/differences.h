#pragma once

#include "engine/body.h"
#include "mlo/check.h"

#include <exception>

namespace mlo {

/// Holds what an engine is, and puts it back: by `restore`, which may throw, and at the end of its
/// life whatever happened in between. Where that fails the engine is marked as broken
/// (`Engine::Body::broken`).
class StateGuard {
 public:
  /// Throws what a source or a method throws that cannot load what it has saved, with the engine as
  /// it was.
  explicit StateGuard(Engine::Body& body);
  ~StateGuard();
  StateGuard(const StateGuard&) = delete;
  StateGuard& operator=(const StateGuard&) = delete;

  void restore();
  /// For the last time: nothing is left for the destructor to do.
  void finish();

 private:
  Engine::Body& body_;
  const State state_;
  bool finished_ = false;
};

/// How the lower levels' steps are taken again at a shifted point.
enum class Response { steps_taken, solved_anew };

/// A shift of a level's parameters: undefined tensors stay where they are.
struct Direction {
  Tensors shift;  ///< of the size of what is shifted, so that a step is relative
  /// the length that counts as one: derivatives are reported along shift / unit
  double unit = 1.0;
  /// on the squares: the sum over all directions estimates that over all coordinates
  double weight = 1.0;
  std::vector<std::size_t> parameters;
  int64_t coordinate = -1;  ///< in the one parameter; −1: a random direction
};

/// Central differences of a level's loss, the levels below responding, with an estimate of their
/// own error.
///
/// With D(ρ) = [L(θ + ρd) − L(θ − ρd)] / 2ρ the derivative is D(ρ) + [D(ρ) − D(4ρ)]/15, and its
/// error is taken to be |D(ρ) − D(4ρ)|/4 + σ/ρ: more than what is left of a smooth loss, about what
/// kinks do, and the rounding σ of the loss, which is measured from third differences over tiny
/// shifts (Moré and Wild 2011). Where that is too much, ρ becomes smaller, or larger if rounding
/// dominates.
class Differences {
 public:
  struct Derivative {
    double value = 0.0, error = 0.0;
  };

  /// `everywhere`: a direction that moves every parameter.
  Differences(Engine::Body& body, Level& level, StateGuard& start, const CheckOptions& options,
              Response response, const Direction& everywhere);

  /// Throws what the loss threw where it cannot be evaluated at any shifted point; `attempt`
  /// returns an infinite error instead.
  Derivative along(const Direction& direction);
  Derivative attempt(const Direction& direction);

  int64_t evaluations() const { return evaluations_; }
  int64_t own_steps() const { return own_steps_; }
  std::vector<CheckReport::Solved> solved() const;

 private:
  struct Gradients {
    Tensors before, after;
  };
  struct Sums {  // of squares
    double before = 0.0, after = 0.0, shift_before = 0.0, shift_after = 0.0;
    int64_t count = 0;
  };
  double loss_at(const Direction& direction, double shift);
  double loss_or_nan(const Direction& direction, double shift);
  /// D(ρ); not a number where the loss cannot be evaluated.
  double quotient(const Direction& direction, double rho);
  Derivative extrapolated(double coarse, double fine, double rho, double unit) const;
  double measured_rounding(const Direction& direction);
  void solve_below();
  void count_response(const std::vector<Gradients>& plus, const std::vector<Gradients>& minus);
  int64_t steps_of_all() const;

  Engine::Body& body_;
  Level& level_;
  StateGuard& start_;
  const CheckOptions& options_;
  const Response response_;
  std::vector<std::size_t> order_;  // of the responding levels, those that are read first
  bool single_ = false;             // some level is narrower than float64
  double rounding_ = 0.0;           // σ
  double squares_ = 0.0;            // of the derivatives so far
  int64_t count_ = 0;
  int64_t evaluations_ = 0, own_steps_ = 0, steps_at_start_ = 0;
  std::vector<Gradients> gradients_;  // of the last evaluation, by place in order_
  std::vector<Sums> sums_;
  std::exception_ptr refusal_;  // why the last evaluation failed
};

}  // namespace mlo
