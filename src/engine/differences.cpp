#include "precompiled.h"

#include "engine/differences.h"
#include "level/evaluate.h"

#include "hypergradient/sweep.h"
#include "mlo/error.h"
#include "text.h"

#include <array>
#include <cmath>
#include <limits>

namespace mlo {
namespace {

struct Steps {
  double first, smallest, tiny, wanted,
      epsilon;  // tiny: for rounding; wanted: relative error; epsilon: of a rounded number
};
constexpr double kLargest = 0.25;
constexpr Steps kDouble = {1e-3, 1e-9, 1e-8, 1e-6, std::numeric_limits<double>::epsilon()};
constexpr Steps kSingle = {5e-2, 1e-5, 1e-4, 5e-3, std::numeric_limits<float>::epsilon()};

const Steps& steps_for(bool single) { return single ? kSingle : kDouble; }

double square(const Tensors& tensors) { return dot(tensors, tensors); }
double squared_distance(const Tensors& a, const Tensors& b) {
  Tensors difference = clone(widened(a, b));
  add_scaled(difference, b, -1.0);
  return square(difference);
}

// Loads into each source and method what it has just saved: nothing changes, and what cannot do it
// says so now.
void check_that_all_can_load(Engine::Body& body) {
  for (const auto& level : body.levels.all) {
    std::string what = "the data";
    try {
      State state;
      if (BatchSource* source = level->options.data.source()) {
        source->save(state, "data/");
        source->load(state, "data/");
      }
      what = "the method";
      level->options.best_response->save(state, "method/");
      level->options.best_response->load(state, "method/");
    } catch (const CheckpointError& error) {
      refuse<CheckpointError>(
          "{}; check_hypergradient takes steps and then puts everything back, so {} of level {} "
          "must be able to load what it has saved",
          error.what(), what, quoted(level->name));
    }
  }
}

}  // namespace

StateGuard::StateGuard(Engine::Body& body)
    : body_(body), state_((check_that_all_can_load(body), body.state())) {}

StateGuard::~StateGuard() {
  if (finished_) return;
  try {
    restore();
  } catch (...) {
    body_.broken = std::current_exception();
  }
}

void StateGuard::restore() { body_.apply_state(state_); }

void StateGuard::finish() {
  restore();
  finished_ = true;
}

Differences::Differences(Engine::Body& body, Level& level, StateGuard& start,
                         const CheckOptions& options, Response response,
                         const Direction& everywhere)
    : body_(body), level_(level), start_(start), options_(options), response_(response) {
  for (const auto& each : body.levels.all)
    for (const auto& parameter : each->parameters)
      single_ |= parameter.scalar_type() != at::kDouble;
  if (const auto& sweep = body.plan_of(level).sweep)
    order_.assign(sweep->order().rbegin(), sweep->order().rend());
  sums_.resize(order_.size());
  start_.restore();
  steps_at_start_ = steps_of_all();
  rounding_ = measured_rounding(everywhere);
}

Differences::Derivative Differences::along(const Direction& direction) {
  const Derivative result = attempt(direction);
  if (std::isfinite(result.error)) return result;
  if (refusal_) std::rethrow_exception(refusal_);
  refuse<NonFiniteError>(
      "check_hypergradient: the loss of level {} is not finite at any shifted point; look for a "
      "square root, logarithm or division at zero",
      quoted(level_.name));
}

Differences::Derivative Differences::attempt(const Direction& direction) {
  const Steps& steps = steps_for(single_);
  double rho = options_.radius > 0.0 ? options_.radius : steps.first;
  double coarse = quotient(direction, 4.0 * rho), fine = quotient(direction, rho);
  Derivative best = extrapolated(coarse, fine, rho, direction.unit);
  // A direction in which next to nothing happens need not be known better than the others.
  const auto suffices = [&](const Derivative& d) {
    const double others = count_ > 0 ? std::sqrt(squares_ / static_cast<double>(count_)) : 0.0;
    return options_.radius > 0.0 || d.error <= steps.wanted * std::max(std::abs(d.value), others);
  };
  const auto rounding = [&](double at) { return rounding_ / (at * direction.unit); };
  if (!suffices(best) && rounding(rho) > 0.5 * best.error) {
    for (rho *= 4.0; rho <= kLargest && !suffices(best); rho *= 4.0) {
      const double coarser = quotient(direction, 4.0 * rho);
      const Derivative next = extrapolated(coarser, coarse, rho, direction.unit);
      coarse = coarser;
      if (!(next.error < best.error)) break;
      best = next;
    }
  } else {
    for (rho /= 4.0; rho >= steps.smallest && !suffices(best) && rounding(rho) < best.error;
         rho /= 4.0) {
      const double finer = quotient(direction, rho);
      const Derivative next = extrapolated(fine, finer, rho, direction.unit);
      fine = finer;
      if (next.error < best.error) best = next;
    }
  }
  squares_ += best.value * best.value;
  ++count_;
  return best;
}

Differences::Derivative Differences::extrapolated(double coarse, double fine, double rho,
                                                  double unit) const {
  const double change = fine - coarse;
  if (!std::isfinite(change)) return {0.0, std::numeric_limits<double>::infinity()};
  return {(fine + change / 15.0) / unit, (std::abs(change) / 4.0 + rounding_ / rho) / unit};
}

double Differences::quotient(const Direction& direction, double rho) {
  const double plus = loss_or_nan(direction, rho);
  if (std::isnan(plus)) return plus;
  const std::vector<Gradients> gradients = std::move(gradients_);
  const double minus = loss_or_nan(direction, -rho);
  if (std::isnan(minus)) return minus;
  count_response(gradients, gradients_);
  return (plus - minus) / (2.0 * rho);
}

// A shift may leave where the loss is defined; smaller ones will not.
double Differences::loss_or_nan(const Direction& direction, double shift) {
  try {
    return loss_at(direction, shift);
  } catch (const CheckpointError&) {
    throw;
  } catch (const Error&) {
    refusal_ = std::current_exception();
  } catch (const c10::Error&) {
    refusal_ = std::current_exception();
  }
  return std::numeric_limits<double>::quiet_NaN();
}

double Differences::measured_rounding(const Direction& direction) {
  const Steps& steps = steps_for(single_);
  double least = 0.0, smallest = std::numeric_limits<double>::infinity();
  for (double step = steps.tiny; step >= 1e-4 * steps.tiny; step *= 1e-2) {
    std::array<double, 6> values;
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = loss_or_nan(direction, static_cast<double>(i) * step);
    double squares = 0.0;
    for (std::size_t i = 0; i + 3 < values.size(); ++i) {
      const double third = values[i + 3] - 3.0 * values[i + 2] + 3.0 * values[i + 1] - values[i];
      squares += third * third;
    }
    // The variance of a third difference of independent errors is 1 + 9 + 9 + 1 times theirs. No
    // error is below that of the loss's own last digit; where it is far above, smaller shifts tell
    // whether this is rounding, which does not go away.
    if (!std::isnan(values[0])) least = 0.5 * steps.epsilon * std::abs(values[0]);
    if (std::isnan(squares)) continue;
    const double measured = std::sqrt(squares / (20.0 * static_cast<double>(values.size() - 3)));
    if (measured == 0.0) break;  // nothing moved
    smallest = std::min(smallest, measured);
    if (smallest < 10.0 * least) break;
  }
  return std::isfinite(smallest) ? std::max(smallest, least) : least;
}

double Differences::loss_at(const Direction& direction, double shift) {
  start_.restore();
  const at::NoGradGuard no_grad;
  level_.values.about_to_change();
  for (std::size_t i = 0; i < direction.shift.size(); ++i)
    if (direction.shift[i].defined() && !level_.frozen[i])
      level_.parameters[i].add_(direction.shift[i].to(level_.parameters[i].scalar_type()), shift);
  if (response_ == Response::steps_taken) {
    body_.advance_below(level_);
  } else {
    solve_below();
  }
  double loss = 0.0;
  body_.levels.set_gradients_for(level_, level_.parameters);
  std::vector<Draw> draws = body_.draw(level_);
  for (Draw& draw : draws) loss += evaluate(level_, draw).loss.item<double>();
  ++evaluations_;
  own_steps_ += steps_of_all() - steps_at_start_;
  return loss / static_cast<double>(draws.size());
}

// Each responding level takes many own steps, the ones that are read first; none waits for another.
void Differences::solve_below() {
  gradients_.assign(order_.size(), {});
  for (std::size_t k = 0; k < order_.size(); ++k) {
    Level& level = body_.levels[order_[k]];
    for (int64_t i = 0; i < options_.resolve_steps; ++i) {
      Tensors gradient = body_.total_gradient(level, nullptr);
      if (i == 0) gradients_[k].before = clone(gradient);
      body_.apply(level, std::move(gradient), nullptr);
    }
    gradients_[k].after = body_.total_gradient(level, nullptr);
  }
}

void Differences::count_response(const std::vector<Gradients>& plus,
                                 const std::vector<Gradients>& minus) {
  if (response_ == Response::steps_taken) return;
  for (std::size_t k = 0; k < sums_.size(); ++k) {
    const Tensors& like = body_.levels[order_[k]].parameters;
    const auto wide = [&](const Tensors& tensors) { return widened(tensors, like); };
    Sums& sums = sums_[k];
    sums.before += square(wide(plus[k].before));
    sums.after += square(wide(plus[k].after));
    sums.shift_before += squared_distance(wide(plus[k].before), wide(minus[k].before));
    sums.shift_after += squared_distance(wide(plus[k].after), wide(minus[k].after));
    ++sums.count;
  }
}

std::vector<CheckReport::Solved> Differences::solved() const {
  std::vector<CheckReport::Solved> result;
  for (std::size_t k = 0; k < sums_.size(); ++k) {
    const Sums& sums = sums_[k];
    if (sums.count == 0) continue;
    const auto count = static_cast<double>(sums.count);
    result.push_back(
        {body_.levels[order_[k]].name, std::sqrt(sums.before / count),
         std::sqrt(sums.after / count),
         sums.shift_before > 0.0 ? std::sqrt(sums.shift_after / sums.shift_before) : 0.0});
  }
  return result;
}

int64_t Differences::steps_of_all() const {
  int64_t steps = 0;
  for (const auto& level : body_.levels.all) steps += level->counters.steps;
  return steps;
}

}  // namespace mlo
