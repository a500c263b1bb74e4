#include "precompiled.h"

#include "mlo/hypergradient/probe.h"

#include "level.h"
#include "mean.h"
#include "mlo/error.h"

#include <memory>

namespace mlo {

struct Probe::Body {
  Body(Levels& all, Level& the_level, const StepRecord& the_record, EvaluationPoint point, bool second)
      : levels(all), level(the_level), record(the_record), second_order(second) {
    const bool before = point == EvaluationPoint::before_step;
    rewinds.reserve(level.value_reads.size() + 1);
    rewinds.push_back(std::make_unique<Rewind>(level.parameters, before ? record.values[level.index] : level.values.freeze(),
                                               level.scratch));
    for (const std::size_t j : level.value_reads) {
      const auto& frozen = record.values[j];
      if (before && !frozen->live) rewinds.push_back(std::make_unique<Rewind>(levels[j].parameters, frozen, levels[j].scratch));
    }
    gradients.reserve(levels.size());
    for (const auto& other : levels.all) gradients.push_back(other->gradients_on);
  }

  ~Body() {
    if (evaluating) {
      copy_values(levels.buffers, buffers);
      levels.set_modes(modes);
    }
    for (std::size_t i = 0; i < levels.size(); ++i) levels[i].set_gradients(gradients[i] != 0);
  }

  // Buffers and modes matter only once the loss is evaluated; a kept graph needs neither.
  void prepare_evaluation() {
    if (!evaluating) {
      if (!levels.buffers.empty()) buffers = clone(levels.buffers);
      modes = levels.modes();
      if (modes != record.modes) levels.set_modes(record.modes);
      evaluating = true;
    }
    if (!record.buffers.empty()) copy_values(levels.buffers, record.buffers);
  }

  // The recorded draw; evaluations replay its choices and do not change it.
  Draw& draw(std::size_t i) const { return const_cast<Draw&>(record.draws[i]); }

  Levels& levels;
  Level& level;
  const StepRecord& record;
  const bool second_order;
  std::vector<std::unique_ptr<Rewind>> rewinds;  // own level's first
  std::vector<char> gradients;
  bool evaluating = false;
  Tensors buffers;
  std::vector<char> modes;
  Tensors recorded;
};

Probe::Probe(Levels& levels, Level& level, const StepRecord& record, EvaluationPoint point, bool second_order)
    : body_(std::make_unique<Body>(levels, level, record, point, second_order)) {}
Probe::~Probe() = default;

const std::string& Probe::level_name() const { return body_->level.name; }
const Tensors& Probe::parameters() const { return body_->level.parameters; }
const StepRecord& Probe::record() const { return body_->record; }
void Probe::count_hessian_product() { ++body_->level.counters.hessian_products; }
void Probe::count_mixed_product() { ++body_->level.counters.mixed_products; }
void Probe::count_backward() { ++body_->level.counters.backwards; }

void Probe::shift(double epsilon, const Tensors& direction) {
  Body& body = *body_;
  body.rewinds.front()->again();
  if (epsilon == 0.0) return;
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < direction.size(); ++i) {
    const auto& parameter = body.level.parameters[i];
    parameter.add_(direction[i].scalar_type() == parameter.scalar_type() ? direction[i]
                                                                         : direction[i].to(parameter.scalar_type()),
                   epsilon);
  }
}

Tensors Probe::gradient(const Tensors& wrt) {
  Body& body = *body_;
  body.levels.set_gradients_for(wrt);
  const std::size_t draws = body.record.draws.size();
  Mean mean(wrt.size(), draws);
  for (std::size_t m = 0; m < draws; ++m) {
    body.prepare_evaluation();
    Tensors gradient(wrt.size());
    if (!known_gradient(body.level, body.draw(m), /*replay=*/true, wrt, gradient)) {
      const at::AutoGradMode with_gradients(true);
      const Evaluation evaluation = evaluate(body.level, body.draw(m), /*replay=*/true);
      if (!evaluation.loss.requires_grad()) continue;  // uses none of wrt
      gradient = differentiate(body.level, evaluation.loss, wrt, /*create_graph=*/false);
    }
    mean.add(std::move(gradient));
  }
  return mean.take();
}

Tensors Probe::gradient_graph(std::size_t micro_batch, const Tensors& targets) {
  Body& body = *body_;
  body.levels.set_gradients_for(body.level.parameters, targets);
  if (!body.record.kept.empty()) return body.record.kept[micro_batch];
  const SecondOrderGuard attention(body.second_order && body.level.guarded_attention);
  const at::AutoGradMode with_gradients(true);
  body.prepare_evaluation();
  const Evaluation evaluation = evaluate(body.level, body.draw(micro_batch), /*replay=*/true);
  if (!evaluation.loss.requires_grad()) return Tensors(body.level.parameters.size());
  return differentiate(body.level, evaluation.loss, body.level.parameters, /*create_graph=*/true);
}

Tensors Probe::forward_mode_product(const Tensors& v, const Tensors& wrt) {
  Body& body = *body_;
  body.levels.set_gradients_for(wrt);
  const SecondOrderGuard attention(true);  // no fused kernel has a forward derivative
  const at::AutoGradMode with_gradients(true);
  Mean mean(wrt.size(), body.record.draws.size());
  for (std::size_t m = 0; m < body.record.draws.size(); ++m) {
    body.prepare_evaluation();
    mean.add(product_by_duals(body.level, body.draw(m), v, wrt));
  }
  return mean.take();
}

Tensors Probe::analytic_product(const Tensors& v, const Tensors& wrt) {
  Body& body = *body_;
  if (!body.level.analytic)
    throw UnsupportedError("level '" + body.level.name +
                           "': the analytic oracle needs a problem that derives from AnalyticDerivatives");
  Mean mean(wrt.size(), body.record.draws.size());
  for (std::size_t m = 0; m < body.record.draws.size(); ++m) {
    body.prepare_evaluation();
    mean.add(known_product(body.level, body.draw(m), v, wrt));
  }
  return mean.take();
}

}  // namespace mlo
