#include "precompiled.h"

#include "engine/body.h"
#include "engine/profile.h"
#include "hypergradient/sweep.h"
#include "level/evaluate.h"
#include "level/second_order.h"
#include "mlo/error.h"
#include "tensors/described.h"
#include "tensors/mean.h"
#include "text.h"

#include <ATen/Parallel.h>

#include <bit>
#include <cmath>
#include <utility>

namespace mlo {
namespace {

// A gradient that the user's hook may write to: not expanded, and nobody else's.
void make_own(Tensors& gradient) {
  for (auto& tensor : gradient)
    if (tensor.defined() && (tensor.use_count() > 1 || !tensor.is_non_overlapping_and_dense()))
      tensor = tensor.clone();
}

// What on_gradient has left must fit the parameters: optimizers write by it without another look.
void check_fits(const Level& level, const Tensors& gradient) {
  if (gradient.size() != level.parameters.size())
    refuse<LossError>(
        "{}: on_gradient left {} tensors for {} parameters; keep one for each, in their order, and "
        "undefined ones for those to be skipped",
        where(level), gradient.size(), level.parameters.size());
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    const at::Tensor &tensor = gradient[i], &parameter = level.parameters[i];
    if (!tensor.defined()) continue;
    if (tensor.sizes() != parameter.sizes() || tensor.scalar_type() != parameter.scalar_type() ||
        tensor.device() != parameter.device() || tensor.layout() != at::kStrided)
      refuse<LossError>(
          "{}: on_gradient left {} as the gradient of parameter {}, which is {}; leave one of "
          "the parameter's shape, type and device",
          where(level), described(tensor), quoted(level.parameter_names[i]), described(parameter));
  }
}

void check_finite_gradient(const Level& level, const Tensors& gradient, bool total,
                           const char* whose = "") {
  if (all_finite(gradient)) return;
  for (std::size_t i = 0; i < gradient.size(); ++i)
    if (!all_finite({gradient[i]}))
      refuse<NonFiniteError>(
          "{}: the {}{} of parameter {} is not finite, at a finite loss of {}; look for a square "
          "root, logarithm or division at zero, or clip",
          where(level), total ? "hypergradient" : "gradient", whose,
          quoted(level.parameter_names[i]), level.past.last_loss.item<double>());
}

// Which tensors there are, and how often each has been written.
using Written = std::pair<const void*, uint32_t>;
std::vector<Written> written(const Tensors& tensors) {
  std::vector<Written> result;
  for (const auto& tensor : tensors)
    result.emplace_back(tensor.unsafeGetTensorImpl(),
                        tensor.defined() && !tensor.is_inference() ? tensor._version() : 0);
  return result;
}

// A loss on no graph: either nothing of the level is trained just now, or on_gradient has made its
// gradient.
void check_makes_gradient(const Level& level, const Tensors& gradient) {
  const auto made = [](const at::Tensor& tensor) { return tensor.defined(); };
  const auto is_frozen = [](char frozen) { return frozen != 0; };
  if (std::any_of(gradient.begin(), gradient.end(), made) ||
      std::all_of(level.frozen.begin(), level.frozen.end(), is_frozen))
    return;
  refuse<LossError>(
      "{}: the loss is detached: no graph leads from it to the parameters this level trains, and "
      "on_gradient made no gradient; remove detach(), no-grad blocks and item() on the way, or "
      "make the gradient there",
      where(level));
}

// For the step that comes now, by the schedule.
void set_learning_rates(Level& level) {
  if (!level.options.schedule) return;
  const double factor = naming<Error>([&] { return message("{}: the schedule", where(level)); },
                                      [&] { return level.options.schedule(level.counters.steps); });
  if (!(factor >= 0.0) || !std::isfinite(factor))
    refuse<ConfigError>("{}: the schedule gave the factor {}; it must be finite and at least 0",
                        where(level), factor);
  auto& groups = level.optimizer->param_groups();
  for (std::size_t i = 0; i < groups.size(); ++i)
    groups[i].options().set_lr(level.base_learning_rates[i] * factor);
}

}  // namespace

// Steps of one cycle (the top levels' next step and all below) are never carried into the next:
// every wait is for fresh steps, and nothing of a cycle needs to be in a checkpoint.
void Engine::Body::begin_cycle() {
  for (const auto& level : levels.all) {
    std::fill(level->past.taken.begin(), level->past.taken.end(), 0);
    forget_steps(*level);
  }
}

// Before any work of the step: later the change of one level's parameters would show as another's
// strange error.
void Engine::Body::check_parameters() const {
  for (const auto& level : levels.all) level->check_parameters();
}

void Engine::Body::step() {
  check_parameters();
  levels.look_at_frozen();
  begin_cycle();
  for (const Turn& turn : warming_up() ? graph.cycle(tops, steps_by_level()) : cycle) take(turn);
  levels.set_all_gradients(true);
  ++steps;
  // A read that begins later than the first batch is found without validations, too, at a cost that
  // vanishes.
  if (looks_after(steps)) look_at_reads_again();
}

// The first step's batches are those that build() has looked at.
bool Engine::Body::looks_after(int64_t step) {
  return step > 1 && std::has_single_bit(static_cast<uint64_t>(step));
}

bool Engine::Body::warming_up() const {
  return std::any_of(levels.all.begin(), levels.all.end(), [](const auto& level) {
    return level->counters.steps < level->options.warmup_steps;
  });
}

std::vector<int64_t> Engine::Body::steps_by_level() const {
  std::vector<int64_t> result;
  for (const auto& level : levels.all) result.push_back(level->counters.steps);
  return result;
}

void Engine::Body::advance_below(const Level& upper) {
  std::vector<Turn> turns = graph.cycle({upper.index}, steps_by_level());
  turns.pop_back();  // its own
  for (const Turn& turn : turns) take(turn);
}

void Engine::Body::forget_steps(Level& level) {
  std::size_t wanted = 0;
  for (const std::size_t upper : plan_of(level).sweepers)
    wanted = std::max(wanted, level.past.taken[upper]);
  if (!level.needs.trajectory) wanted = std::min<std::size_t>(wanted, 1);
  while (level.past.records.size() > wanted) level.past.records.pop_front();
}

void Engine::Body::start_inner_loop(Level& level) {
  level.values.about_to_change();  // the hook may set the parameters anew
  const int64_t version =
      level.needs.trajectory && !level.past.records.empty() ? levels.version() : -1;
  hook(level, "on_inner_loop_start", [&] { level.problem->on_inner_loop_start(); });
  if (version >= 0 && levels.version() != version)
    refuse<LossError>(
        "{}: on_inner_loop_start wrote parameters in the middle of the steps that {} "
        "differentiates through, because a level in between has stepped; give this level an "
        "implicit method such as mlo::cg(), or the levels in between unroll = 1",
        where(level), quoted(level.options.best_response->name()));
}

void Engine::Body::take(const Turn& turn) {
  Level& level = levels[turn.level];
  if (turn.kind == Turn::Kind::start) return start_inner_loop(level);
  const ProfileGuard profile(options.profile, level.counters, level.parameters.front().device());
  StepRecord* record = begin_record(level, turn.kind == Turn::Kind::last_step);
  Tensors gradient = total_gradient(level, record);
  // The sweep has used them; handles must be gone before this level's parameters change, or they
  // would be copied.
  for (const std::size_t below : plan_of(level).below) {
    levels[below].past.taken[level.index] = 0;
    forget_steps(levels[below]);
  }
  apply(level, std::move(gradient), record);
  for (auto& taken : level.past.taken) ++taken;
  forget_steps(level);
}

StepRecord* Engine::Body::begin_record(Level& level, bool last) {
  if (plan_of(level).sweepers.empty() || !(last || level.needs.trajectory)) return nullptr;
  if (!level.needs.trajectory) level.past.records.clear();
  StepRecord& record = level.past.records.emplace_back();
  record.step = level.counters.steps;
  record.shared = plan_of(level).sweepers.size() > 1;
  record.values.resize(levels.size());
  record.values[level.index] = level.values.freeze();
  for (const std::size_t j : level.value_reads) record.values[j] = levels[j].values.freeze();
  record.threads = at::get_num_threads();
  record.modes = levels.modes();
  return &record;
}

Batch Engine::Body::next_batch(Level& level) {
  Data& data = level.options.data;
  Batch batch;
  if (data.empty()) return batch;
  naming<ConfigError>(
      [&] { return message("{}: the data", where(level)); },
      [&] {
        if (data.source()) {
          batch = data.source()->next();
        } else {
          seed_generators(stream_key(options.seed, ~level.stream, level.batches, 0));
          batch = data.function()(level.batches);
        }
      });
  ++level.batches;
  if (batch.size() == 0)
    refuse<ConfigError>(
        "{}: the data source gave an empty batch; a level without data leaves LevelOptions::data "
        "out",
        where(level));
  for (const auto& tensor : batch.tensors()) {
    if (tensor.defined() && tensor.is_inference())
      refuse<ConfigError>(
          "{}: the data source gave a tensor that was made under c10::InferenceMode, which no "
          "gradient can pass; make it outside, or clone() it there",
          where(level));
    if (!tensor.defined() || (tensor.dim() > 0 && tensor.size(0) == 0))
      refuse<ConfigError>(
          "{}: the data source gave a batch with {}; every tensor must have at least one row",
          where(level),
          tensor.defined() ? message("a tensor of shape {}", shape_of(tensor.sizes()))
                           : "an undefined tensor");
  }
  return batch;
}

std::vector<Draw> Engine::Body::draw(Level& level) {
  if (!level.past.pending.empty()) {
    level.past.unread.reset();
    return std::exchange(level.past.pending, {});
  }
  std::vector<Draw> draws(static_cast<std::size_t>(level.options.accumulate));
  for (std::size_t m = 0; m < draws.size(); ++m) {
    draws[m].batch = next_batch(level);
    draws[m].seed =
        stream_key(options.seed, level.stream, level.counters.steps, static_cast<int64_t>(m));
  }
  return draws;
}

Tensors Engine::Body::total_gradient(Level& level, StepRecord* record) {
  level.check_parameters();
  std::vector<Draw> draws = draw(level);
  const LevelPlan& plan = plan_of(level);
  const Tensors& wrt = plan.sweep ? plan.sweep->wrt() : level.parameters;
  const bool keep = record && level.needs.kept_graph;
  levels.set_gradients(level, keep ? plan.kept : plan.differentiated);
  const SecondOrderGuard attention(keep && level.guarded_attention);
  if (record) record->guarded_attention = keep && level.guarded_attention;
  const at::AutoGradMode with_gradients(true);

  level.past.detached = false;
  Mean mean(wrt.size(), draws.size()), loss(1, draws.size());
  for (Draw& draw : draws) {
    if (record) draw.untrained = levels.untrained.snapshot();
    Tensors gradient;
    loss.add({direct_gradient(level, draw, wrt, keep ? record : nullptr, gradient)});
    mean.add(std::move(gradient));
  }
  level.past.last_loss = loss.take().front();
  Tensors direct = mean.take();
  const auto made = [](const at::Tensor& part) { return part.defined(); };
  if (level.past.detached && std::any_of(direct.begin(), direct.end(), made))
    check_makes_gradient(level, {});  // some draws only
  if (options.validate_every > 0 || looks_after(steps + 1)) level.past.last_draws = draws;
  if (record) record->draws = std::move(draws);
  if (!plan.sweep) return direct;

  const at::NoGradGuard no_grad;
  Tensors total = plan.sweep->total_derivative(direct);
  for (const std::size_t k : plan.sweep->order()) {
    const SolveSummary solve = levels[k].options.best_response->summary();
    if (!solve.warning.empty())
      warn(message("solve of {}: {}", levels[k].name, to_string(solve.reason)), solve.warning);
  }
  for (std::size_t i = 0; i < total.size(); ++i)
    if (total[i].defined() && total[i].scalar_type() != level.parameters[i].scalar_type())
      total[i] = total[i].to(level.parameters[i].scalar_type());
  return total;
}

// ∂L/∂wrt on one micro-batch into `gradient`, with its graph into `keep` if given; returns the
// loss.
at::Tensor Engine::Body::direct_gradient(Level& level, Draw& draw, const Tensors& wrt,
                                         StepRecord* keep, Tensors& gradient) {
  std::optional<Evaluation> evaluation;
  if (!keep) evaluation = evaluate_analytic(level, draw, wrt, gradient);
  if (!evaluation) {
    const int64_t version = levels.version();
    evaluation = evaluate(level, draw);
    check_unwritten(levels, level, version);
    if (evaluation->loss.requires_grad()) {
      gradient = differentiate(level, evaluation->loss, wrt, keep != nullptr);
    } else {
      level.past.detached = true;
      if (!level.makes_gradient) check_makes_gradient(level, {});
      gradient.assign(wrt.size(), {});
    }
  }
  if (keep) {
    keep->kept.emplace_back(
        gradient.begin(), gradient.begin() + static_cast<std::ptrdiff_t>(level.parameters.size()));
    for (auto& tensor : gradient)
      if (tensor.defined()) tensor = tensor.detach();
  }
  level.past.last_metrics = std::move(evaluation->metrics);
  for (auto& [name, metric] : level.past.last_metrics)
    metric = metric.detach();  // or it would keep the graph alive
  return evaluation->loss.detach();
}

void Engine::Body::apply(Level& level, Tensors gradient, StepRecord* record) {
  const at::NoGradGuard no_grad;
  const bool total = plan_of(level).sweep != nullptr;
  check_finite_gradient(level, gradient, total);
  if (total && level.rule && level.counters.steps % 100 == 0) {
    const double rms = norm(gradient) / std::sqrt(static_cast<double>(numel(gradient)));
    if (rms > 0.0 && rms < 10.0 * level.rule->epsilon())
      warn(message("eps of {}", level.name),
           message("level {}: the hypergradient's root mean square is {:.3g}, below ten times the "
                   "optimizer's eps = {}, so its steps shrink with it; give this level's optimizer "
                   "a smaller eps",
                   quoted(level.name), rms, level.rule->epsilon()));
  }
  Clipping clipping;
  if (level.options.clip_norm > 0.0) {
    const double size = norm(gradient);
    if (size > level.options.clip_norm) {
      const double factor = level.options.clip_norm / size;
      if (record) clipping = Clipping(factor, gradient);
      gradient = scaled(gradient, factor);
    }
  }
  make_own(gradient);
  level.values.about_to_change();  // by the optimizer, and the hook may write parameters as well
  const std::vector<Written> before = written(gradient);
  hook(level, "on_gradient", [&] { level.problem->on_gradient(gradient); });
  check_fits(level, gradient);
  if (written(gradient) != before)
    check_finite_gradient(level, gradient, total, " that on_gradient left");
  // Whatever on_gradient made of it: the optimizer skips what has no gradient.
  for (std::size_t i = 0; i < gradient.size(); ++i)
    if (level.frozen[i]) gradient[i].reset();
  if (level.past.detached) check_makes_gradient(level, gradient);

  set_learning_rates(level);
  for (std::size_t i = 0; i < gradient.size(); ++i)
    level.parameters[i].mutable_grad() = gradient[i];
  if (record) {
    if (level.needs.update_derivative || level.needs.optimizer_trajectory)
      record->derivative =
          level.rule->observe(level.parameters, gradient, clipping, level.needs.update_derivative,
                              level.needs.optimizer_trajectory);
    if (level.needs.learning_rates) record->learning_rates = level.learning_rates();
    record->gradient = std::move(gradient);
  }
  naming<Error>([&] { return message("{}: the optimizer's step", where(level)); },
                [&] { level.optimizer->step(); });
  for (const auto& parameter : level.parameters) parameter.mutable_grad().reset();
  ++level.counters.steps;
  hook(level, "on_step", [&] { level.problem->on_step(); });
  if (const BatchSource* source = level.options.data.source())
    while (level.epoch < source->epoch())
      hook(level, "on_epoch", [&] { level.problem->on_epoch(++level.epoch); });
}

}  // namespace mlo
