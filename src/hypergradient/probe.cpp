#include "precompiled.h"

#include "mlo/hypergradient/probe.h"

#include "level/evaluate.h"
#include "level/level.h"
#include "level/second_order.h"
#include "mlo/error.h"
#include "tensors/described.h"
#include "tensors/mean.h"
#include "text.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <memory>
#include <optional>

namespace mlo {

struct Probe::Body {
  Body(Levels& all, Level& the_level, const StepRecord& the_record, EvaluationPoint point,
       bool second)
      : levels(all),
        level(the_level),
        record(the_record),
        second_order(second),
        before(point == EvaluationPoint::before_step),
        shifted(the_record.draws.size()) {
    if (levels.probed)
      refuse<Error>(
          "level {}: a probe is open already, and values that two had set would be put back in the "
          "wrong order; keep one probe at a time",
          quoted(level.name));
    if (before) refuse_lost();
    rewinds.reserve(level.value_reads.size() + 1);
    rewinds.push_back(std::make_unique<RewindGuard>(
        level.parameters, before ? record.values[level.index] : level.values.freeze(),
        level.scratch));
    for (const std::size_t j : level.value_reads) {
      const auto& frozen = record.values[j];
      if (before && !frozen->live)
        rewinds.push_back(
            std::make_unique<RewindGuard>(levels[j].parameters, frozen, levels[j].scratch));
    }
    gradients.reserve(levels.size());
    for (const auto& other : levels.all) gradients.push_back(other->gradients_on);
    levels.probed = true;
  }

  ~Body() {
    levels.probed = false;
    if (evaluating) {
      levels.untrained.set(untrained);
      levels.set_modes(modes);
    }
    for (std::size_t i = 0; i < levels.size(); ++i) levels[i].set_gradients(gradients[i] != 0);
  }

  void refuse_lost() const {
    const auto check = [&](const Level& of) {
      if (of.values.lost(*record.values[of.index]))
        refuse<LossError>(
            "{}: the parameters of level {} that this step read are gone: something has written "
            "them outside that level's own steps and hooks (another level's hook, a data source, a "
            "callback). Write a level's parameters in its own on_inner_loop_start, on_gradient or "
            "on_step",
            step(), quoted(of.name));
    };
    check(level);
    for (const std::size_t j : level.value_reads) check(levels[j]);
  }

  // Buffers, frozen parameters and modes matter only once the loss is evaluated; a kept graph needs
  // none of them.
  void prepare_evaluation(std::size_t m) {
    if (!evaluating) {
      untrained = levels.untrained.snapshot();
      modes = levels.modes();
      if (modes != record.modes) levels.set_modes(record.modes);
      evaluating = true;
    }
    levels.untrained.set(record.draws[m].untrained);
  }

  std::string step() const {
    return message("level {} at step {}", quoted(level.name), record.step);
  }

  // How far an evaluation at the recorded values may be from the step's own, relative to the loss.
  // Which kernel runs may depend on what requires a gradient (attention's does), so the last bits
  // may differ; with other kernels, threads or devices sums come in another order.
  double room(bool guarded, bool duals) const {
    const at::Tensor& some = level.parameters.front();
    const bool same = some.is_cpu() && !duals && !level.analytic &&
                      guarded == record.guarded_attention &&
                      record.threads == at::get_num_threads();
    if (level.options.precision == Precision::bfloat16 || some.element_size() < 4) return 3e-2;
    if (same) return some.scalar_type() == at::kDouble ? 1e-12 : 1e-5;
    return some.scalar_type() == at::kDouble ? 1e-8 : 1e-3;
  }

  // A replay that gives another value replays another function, whose derivatives are not those of
  // the step.
  void check_value(std::size_t m, double value, bool guarded = false, bool duals = false) {
    const double recorded = record.draws[m].loss;
    level.past.largest_loss = std::max(level.past.largest_loss, std::abs(recorded));
    if (std::abs(value - recorded) <= room(guarded, duals) * level.past.largest_loss) return;
    const bool several = record.draws.size() > 1;
    refuse<LossError>(
        "{}{}: the loss was {}, and evaluated again for the levels above it is {}, so its "
        "derivatives would be those of another function. Something that it reads has changed in "
        "between: a counter or cache kept between calls (keep none), a tensor that is neither a "
        "parameter nor a registered buffer of a module in trains(…) or .uses(…) (register it), "
        "values written through data() or set_data (write them under a NoGradGuard), another "
        "level's parameters that earlier batches did not use (name it in LevelOptions::reads), or "
        "random numbers that are not from LibTorch's default generators",
        step(), several ? message(", micro-batch {}", m) : "", recorded, value);
  }

  // At θ ± εv the values are others; their mean is the step's but for ½ε²vᵀHv, of which the replays
  // that were found right say how large it gets. A larger gap, or the first, is looked into by an
  // evaluation where the step was; it is not counted.
  void check_shifted(std::size_t m, double value, const Tensors& wrt) {
    Shifted& other = shifted[m];
    const bool pair = other.epsilon == -epsilon && other.shift + 1 == shift;
    const double gap = std::abs(0.5 * (other.value + value) - record.draws[m].loss);
    other = {shift, epsilon, value, other.confirmed};
    if (!pair || other.confirmed || gap <= 2.0 * level.past.widest_gap) return;
    move(0.0, direction);
    prepare_evaluation(m);
    levels.set_gradients_for(level, wrt);
    const at::AutoGradMode with_gradients(true);
    const int64_t forwards = level.counters.forwards;
    const double again = value_of(replay(level, draw(m)).loss);
    level.counters.forwards = forwards;
    check_value(m, again);
    other.confirmed = true;
    level.past.widest_gap = std::max(level.past.widest_gap, gap);
    move(epsilon, direction);
  }

  void move(double by, const Tensors& along) {
    rewinds.front()->again();
    if (by == 0.0) return;
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < along.size(); ++i) {
      const auto& parameter = level.parameters[i];
      parameter.add_(along[i].scalar_type() == parameter.scalar_type()
                         ? along[i]
                         : along[i].to(parameter.scalar_type()),
                     by);
    }
  }

  const Draw& draw(std::size_t i) const { return record.draws[i]; }

  void check_direction(const char* function, const Tensors& v) const {
    if (const std::string why = misfit(v, level.parameters, /*zeros=*/false); !why.empty())
      refuse<Error>(
          "level {}: Probe::{}: {}; give one tensor for each of the level's parameters, of its "
          "shape",
          quoted(level.name), function, why);
  }

  Levels& levels;
  Level& level;
  const StepRecord& record;
  const bool second_order, before;
  std::vector<std::unique_ptr<RewindGuard>> rewinds;  // own level's first
  std::vector<char> gradients;
  bool evaluating = false;
  Tensors untrained;  // the present values, to be put back
  std::vector<char> modes;

  // The last evaluation of each draw at shifted values.
  struct Shifted {
    int64_t shift = -1;  // its number within this probe
    double epsilon = 0.0, value = 0.0;
    bool confirmed = false;
  };
  std::vector<Shifted> shifted;
  int64_t shift = 0;
  double epsilon = 0.0;
  Tensors direction;
};

Probe::Probe(Levels& levels, Level& level, const StepRecord& record, EvaluationPoint point,
             bool second_order)
    : body_(std::make_unique<Body>(levels, level, record, point, second_order)) {}
Probe::~Probe() = default;

const std::string& Probe::level_name() const { return body_->level.name; }
const Tensors& Probe::parameters() const { return body_->level.parameters; }
const StepRecord& Probe::record() const { return body_->record; }
int64_t Probe::visits() const { return body_->level.counters.visits; }
void Probe::count_hessian_product() { ++body_->level.counters.hessian_products; }
void Probe::count_mixed_product() { ++body_->level.counters.mixed_products; }
void Probe::count_backward() { ++body_->level.counters.backwards; }

void Probe::shift(double epsilon, const Tensors& direction) {
  Body& body = *body_;
  if (epsilon != 0.0) body.check_direction("shift", direction);
  ++body.shift;
  body.epsilon = epsilon;
  body.direction = direction;
  body.move(epsilon, direction);
}

Tensors Probe::gradient(const Tensors& wrt) {
  Body& body = *body_;
  body.levels.set_gradients_for(body.level, wrt);
  const std::size_t draws = body.record.draws.size();
  Mean mean(wrt.size(), draws);
  for (std::size_t m = 0; m < draws; ++m) {
    body.prepare_evaluation(m);
    Tensors gradient(wrt.size());
    std::optional<Evaluation> evaluation = replay_analytic(body.level, body.draw(m), wrt, gradient);
    if (!evaluation) {
      const at::AutoGradMode with_gradients(true);
      evaluation = replay(body.level, body.draw(m));
      if (evaluation->loss.requires_grad())  // else it uses none of wrt
        gradient = differentiate(body.level, evaluation->loss, wrt, /*create_graph=*/false);
    }
    mean.add(std::move(gradient));
    if (!body.before) continue;  // where the step has not been: nothing to be held against
    if (body.epsilon == 0.0) {
      body.check_value(m, value_of(evaluation->loss));
    } else {
      body.check_shifted(m, value_of(evaluation->loss), wrt);
    }
  }
  return mean.take();
}

Tensors Probe::gradient_graph(std::size_t micro_batch, const Tensors& targets) {
  Body& body = *body_;
  if (micro_batch >= body.record.draws.size())
    refuse<Error>("level {}: Probe::gradient_graph: micro-batch {} of {}; they are counted from 0",
                  quoted(body.level.name), micro_batch, body.record.draws.size());
  body.levels.set_gradients_for(body.level, body.level.parameters, targets);
  if (!body.record.kept.empty()) return body.record.kept[micro_batch];
  const bool guarded = body.second_order && body.level.guarded_attention;
  const SecondOrderGuard attention(guarded);
  const at::AutoGradMode with_gradients(true);
  body.prepare_evaluation(micro_batch);
  const Evaluation evaluation = replay(body.level, body.draw(micro_batch));
  if (body.before && body.epsilon == 0.0)
    body.check_value(micro_batch, value_of(evaluation.loss), guarded);
  if (!evaluation.loss.requires_grad()) return Tensors(body.level.parameters.size());
  return differentiate(body.level, evaluation.loss, body.level.parameters, /*create_graph=*/true);
}

Tensors Probe::forward_mode_product(const Tensors& v, const Tensors& wrt) {
  Body& body = *body_;
  body.check_direction("forward_mode_product", v);
  body.levels.set_gradients_for(body.level, wrt);
  const SecondOrderGuard attention(true);  // no fused kernel has a forward derivative
  const at::AutoGradMode with_gradients(true);
  Mean mean(wrt.size(), body.record.draws.size());
  for (std::size_t m = 0; m < body.record.draws.size(); ++m) {
    body.prepare_evaluation(m);
    double value = 0.0;
    mean.add(product_by_duals(body.level, body.draw(m), v, wrt, &value));
    if (body.before && body.epsilon == 0.0)
      body.check_value(m, value, /*guarded=*/true, /*duals=*/true);
  }
  return mean.take();
}

Tensors Probe::analytic_product(const Tensors& v, const Tensors& wrt) {
  Body& body = *body_;
  if (!body.level.analytic)
    refuse<UnsupportedError>(
        "level {}: the analytic oracle needs a problem that derives from "
        "mlo::AnalyticDerivatives; derive from it, or use mlo::one_step()",
        quoted(body.level.name));
  body.check_direction("analytic_product", v);
  body.levels.set_gradients_for(body.level, wrt);
  Mean mean(wrt.size(), body.record.draws.size());
  for (std::size_t m = 0; m < body.record.draws.size(); ++m) {
    body.prepare_evaluation(m);
    mean.add(mlo::analytic_product(body.level, body.draw(m), v, wrt));
  }
  return mean.take();
}

}  // namespace mlo
