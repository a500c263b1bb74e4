#include "precompiled.h"

#include "engine/body.h"
#include "engine/untouched.h"
#include "level/evaluate.h"
#include "mlo/error.h"
#include "mlo/hypergradient/oracle.h"
#include "text.h"

#include <cmath>

namespace mlo {
namespace {

bool in_double(const Level& level) { return level.parameters.front().scalar_type() == at::kDouble; }

// The first draw of the level's first step, as a probe needs it.
StepRecord first_step(Levels& levels, Level& level) {
  StepRecord record;
  record.values.resize(levels.size());
  record.values[level.index] = level.values.freeze();
  for (const std::size_t j : level.value_reads) record.values[j] = levels[j].values.freeze();
  record.modes = levels.modes();
  record.draws.push_back(level.past.pending.front());
  record.draws.front().untrained = levels.untrained.snapshot();
  return record;
}

// Along the gradient, where the signal is largest, and across it, where a detached part may be.
Tensors direction(const Level& level, const Tensors& slope, uint64_t key) {
  const double rms = norm(slope) / std::sqrt(static_cast<double>(numel(level.parameters)));
  Tensors v(slope.size());
  seed_generators(key);
  for (std::size_t i = 0; i < v.size(); ++i) {
    // Of each tensor's own size: beside a steep one a random move as large would be all that
    // differences see of a flat one.
    const double own = slope[i].defined()
                           ? norm({slope[i]}) / std::sqrt(static_cast<double>(slope[i].numel()))
                           : 0.0;
    v[i] = at::randn_like(level.parameters[i]).mul_(own > 0.0 ? own : rms > 0.0 ? rms : 1.0);
    if (slope[i].defined()) v[i].add_(slope[i]);
  }
  return v;
}

// Whether the loss's own slope along v is another one by differences; no, where that cannot be
// told.
bool slopes_differ(Level& level, const StepRecord& record, const Tensors& slope, const Tensors& v,
                   const UntouchedGuard& untouched) {
  const double size = norm(level.parameters);
  const double radius =
      (in_double(level) ? 1e-5 : 1e-3) *
      (size > 0.0 ? size : std::sqrt(static_cast<double>(numel(level.parameters)))) / norm(v);
  const Draw& draw = record.draws.front();
  double values[2];
  try {
    const RewindGuard back(level.parameters, record.values[level.index], level.scratch);
    for (const int side : {0, 1}) {
      back.again();
      for (std::size_t i = 0; i < v.size(); ++i)
        level.parameters[i].add_(v[i], side == 0 ? radius : -radius);
      untouched.buffers_again();
      values[side] = value_of(replay(level, draw).loss);
    }
  } catch (const NonFiniteError&) {
    return false;
  }
  const double by_differences = (values[0] - values[1]) / (2.0 * radius);
  const double by_autograd = dot(slope, v);
  const double rounding = (in_double(level) ? 1e-14 : 1e-6) * std::abs(draw.loss) / radius;
  return std::abs(by_differences - by_autograd) > 0.1 * std::abs(by_autograd) + rounding;
}

}  // namespace

// Differences shift the level's parameters and see all that follows from them, also by way of a
// detach(), which automatic differentiation takes as a constant. Where the loss's own slope shows
// that the two disagree, and its mixed products do, too, the user should know. Second derivatives
// are taken only then.
void Engine::Body::check_constants(Level& upper, Level& level) {
  const UntouchedGuard untouched(levels, level);
  StepRecord record = first_step(levels, level);
  levels.set_gradients_for(level, level.parameters);
  Tensors slope;
  {
    const at::AutoGradMode with_gradients(true);
    const at::Tensor loss = evaluate(level, record.draws.front()).loss;
    if (!loss.requires_grad()) return;
    slope = differentiate(level, loss, level.parameters, /*create_graph=*/false);
  }
  const at::NoGradGuard no_grad;
  const Tensors v = direction(level, slope, stream_key(options.seed, level.stream, -6, 0));
  if (!slopes_differ(level, record, slope, v, untouched)) return;

  const Tensors& targets = plan_of(upper).sweep->targets(level.index);
  const auto product = [&](const Oracle& oracle) {
    const auto probe = Sweep::probe(levels, level, record, EvaluationPoint::before_step,
                                    oracle.needs().second_order);
    return widened(
        oracle.linearize(*probe, targets)->product(v, Linearization::Wrt::targets, /*last=*/true),
        targets);
  };
  Tensors exact, differences, nearer;
  try {
    exact = product(*exact_oracle({.keep_graph = false}));
    differences = product(*finite_difference_oracle());
    nearer = product(*finite_difference_oracle({.constant = in_double(level) ? 1e-6 : 3e-4}));
  } catch (const std::exception&) {
    return;  // no second derivative to be had: nothing to compare with
  }
  const double larger = std::max(norm(exact), norm(differences));
  add_scaled(differences, exact, -1.0);
  const double gap = norm(differences);
  if (gap <= 0.3 * larger) return;
  // What is detached is so at every radius; kinks are not, and rounding is not.
  add_scaled(nearer, exact, -1.0);
  add_scaled(nearer, differences, -1.0);
  const std::string found = message(
      "level {}: products by differences ({}) and by automatic differentiation disagree by {} "
      "%",
      quoted(level.name), quoted(level.options.best_response->name()),
      std::round(100.0 * gap / larger));
  if (norm(nearer) > 0.3 * gap)
    warn(
        message("kinks in {}", level.name),
        message("{}, and by how much changes with the radius: kinks (ReLU, max pooling, clamps) or "
                "rounding within it. Take mlo::one_step() or mlo::reverse_over_forward_oracle() "
                "for this level, or keep it in float64",
                found));
  else
    warn(message("detached in {}", level.name),
         message("{}. Does the loss detach something that depends on this level's parameters? "
                 "Differences see through detach() and no-grad blocks; mlo::stop_gradient(…) is a "
                 "constant for both. If nothing is detached, take mlo::one_step()",
                 found));
}

}  // namespace mlo
