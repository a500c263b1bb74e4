#include "precompiled.h"

#include "level/evaluate.h"

#include "level/autocast.h"
#include "level/dual_numbers.h"
#include "libtorch_error.h"
#include "mlo/error.h"
#include "replay/choices.h"
#include "replay/random.h"
#include "tensors/described.h"
#include "tensors/gradients.h"
#include "text.h"

#include <ATen/autocast_mode.h>

#include <cmath>

namespace mlo {
namespace {

// Returns its value.
double check_loss(const Level& level, const at::Tensor& loss) {
  if (!loss.defined())
    refuse<LossError>("{}: the loss returned an undefined tensor; return a scalar", where(level));
  if (loss.is_meta())
    refuse<LossError>(
        "{}: the loss lies on the meta device and has no value; put modules and batches on a real "
        "one",
        where(level));
  if (loss.numel() != 1)
    refuse<LossError>("{}: the loss has shape {}; return a scalar, for example loss.mean()",
                      where(level), shape_of(loss.sizes()));
  if (!at::isFloatingType(loss.scalar_type()))
    refuse<LossError>("{}: the loss is of type {}; return a floating point scalar", where(level),
                      c10::toString(loss.scalar_type()));
  if (level.options.precision == Precision::bfloat16 && loss.scalar_type() != at::kFloat)
    refuse<LossError>(
        "{}: the loss is of type {} at precision bfloat16; convert what the network returns to "
        "float32 before it is summed up, as in network(x).to(torch::kFloat)",
        where(level), c10::toString(loss.scalar_type()));
  const double value = value_of(loss);
  if (!std::isfinite(value))
    refuse<NonFiniteError>(
        "{}: the loss is {}; lower the learning rate, clip the gradient or check the data",
        where(level), value);
  return value;
}

void check_metrics(const Level& level, const Evaluation& evaluation) {
  for (const auto& [name, metric] : evaluation.metrics)
    if (!metric.defined() || metric.numel() != 1)
      refuse<LossError>("{}: the metric {} {}; return a scalar beside the loss", where(level),
                        quoted(name),
                        metric.defined() ? message("has shape {}", shape_of(metric.sizes()))
                                         : "is an undefined tensor");
}

// Calls the user's loss, or what stands for it.
template <class Call>
auto calling_loss(const Level& level, const char* what, const Call& call) {
  try {
    return naming<LossError>([&] { return message("{}: {}", where(level), what); }, call);
  } catch (const detail::NoSuchTensor& error) {
    refuse<LossError>(
        "{}: {} asked for {}; a batch holds the tensors of LevelOptions::data, in their order, "
        "counted from 0",
        where(level), what, error.what());
  }
}

// What a problem knows of a parameter that the user has frozen is not asked for.
void forget_frozen(Tensors& derivatives, const Tensors& wrt) {
  for (std::size_t i = 0; i < wrt.size(); ++i)
    if (!wrt[i].requires_grad()) derivatives[i].reset();
}

[[noreturn]] void refuse_sparse(const Level& level, const at::Tensor& parameter) {
  std::string name = message("a parameter of shape {}", shape_of(parameter.sizes()));
  for (std::size_t i = 0; i < level.parameters.size(); ++i)
    if (level.parameters[i].is_same(parameter))
      name = message("parameter {}", quoted(level.parameter_names[i]));
  refuse<UnsupportedError>(
      "{}: the gradient of {} is sparse, and clipping, optimizers and hypergradients here are for "
      "dense ones; make the embedding with torch::nn::EmbeddingOptions::sparse(false)",
      where(level), name);
}

Evaluation evaluated(Level& level, const Draw& draw, const ChoiceTape& tape) {
  const at::AutoGradMode with_gradients(true);
  seed_generators(draw.seed);
  ++level.counters.forwards;
  const AutocastGuard autocast(level);
  Evaluation result =
      calling_loss(level, "the loss", [&] { return level.problem->loss(draw.batch); });
  // Its cache of converted weights would outlive the values it was made from.
  if (at::autocast::is_autocast_enabled(at::kCPU) || at::autocast::is_autocast_enabled(at::kCUDA))
    at::autocast::clear_cache();
  tape.finish();
  return result;
}

std::optional<Evaluation> evaluated_analytic(Level& level, const Draw& draw, const ChoiceTape& tape,
                                             const Tensors& wrt, Tensors& gradient) {
  seed_generators(draw.seed);
  gradient.assign(wrt.size(), {});
  std::optional<Evaluation> result = calling_loss(level, "AnalyticDerivatives::gradient", [&] {
    return level.analytic->gradient(draw.batch, wrt, gradient);
  });
  if (!result) return result;
  ++level.counters.forwards;
  ++level.counters.backwards;
  if (const std::string why = misfit(gradient, wrt, /*zeros=*/true); !why.empty())
    refuse<LossError>(
        "{}: AnalyticDerivatives::gradient made {} in wrt; set one each, of its shape (undefined "
        "for zero)",
        where(level), why);
  tape.finish();
  forget_frozen(gradient, wrt);
  return result;
}

// Returns the value of the loss.
double checked(const Level& level, const Evaluation& evaluation) {
  const double value = check_loss(level, evaluation.loss);
  check_metrics(level, evaluation);
  return value;
}

}  // namespace

// Without a dispatch where it lies at hand.
double value_of(const at::Tensor& loss) {
  if (loss.is_cpu() && loss.scalar_type() == at::kFloat) return *loss.const_data_ptr<float>();
  if (loss.is_cpu() && loss.scalar_type() == at::kDouble) return *loss.const_data_ptr<double>();
  return loss.detach().item<double>();
}

void check_unwritten(const Levels& levels, const Level& level, int64_t version) {
  if (levels.version() != version)
    refuse<LossError>(
        "{}: the loss wrote parameters; a loss only computes, the optimizer's step writes",
        where(level));
}

Evaluation evaluate(Level& level, Draw& draw) {
  ChoiceTape tape(ChoiceTape::record, draw.choices, level.name, draw.seed);
  Evaluation result = evaluated(level, draw, tape);
  draw.loss = checked(level, result);
  return result;
}

Evaluation replay(Level& level, const Draw& draw) {
  ChoiceTape tape(draw.choices, level.name, draw.seed);
  Evaluation result = evaluated(level, draw, tape);
  checked(level, result);
  return result;
}

std::optional<Evaluation> evaluate_analytic(Level& level, Draw& draw, const Tensors& wrt,
                                            Tensors& gradient) {
  if (!level.analytic) return std::nullopt;
  ChoiceTape tape(ChoiceTape::record, draw.choices, level.name, draw.seed);
  std::optional<Evaluation> result = evaluated_analytic(level, draw, tape, wrt, gradient);
  if (result) draw.loss = checked(level, *result);
  return result;
}

std::optional<Evaluation> replay_analytic(Level& level, const Draw& draw, const Tensors& wrt,
                                          Tensors& gradient) {
  if (!level.analytic) return std::nullopt;
  ChoiceTape tape(draw.choices, level.name, draw.seed);
  std::optional<Evaluation> result = evaluated_analytic(level, draw, tape, wrt, gradient);
  if (result) checked(level, *result);
  return result;
}

Tensors analytic_product(Level& level, const Draw& draw, const Tensors& v, const Tensors& wrt) {
  seed_generators(draw.seed);
  ChoiceTape tape(draw.choices, level.name,
                  draw.seed);  // a product may need fewer choices than the loss
  const at::NoGradGuard no_grad;
  Tensors product = calling_loss(level, "AnalyticDerivatives::product",
                                 [&] { return level.analytic->product(draw.batch, v, wrt); });
  if (const std::string why = misfit(product, wrt, /*zeros=*/true); !why.empty())
    refuse<LossError>(
        "level {}: AnalyticDerivatives::product returned {}; return one for each of wrt, of its "
        "shape (undefined for zero)",
        quoted(level.name), why);
  forget_frozen(product, wrt);
  return product;
}

Tensors product_by_duals(Level& level, const Draw& draw, const Tensors& v, const Tensors& wrt,
                         double* value) {
  std::optional<DualNumbersGuard> duals(std::in_place, level.parameters, v);
  const auto unsupported = [&](const std::string& why) {
    refuse<UnsupportedError>(
        "level {}: the reverse-over-forward oracle {}; use mlo::exact_oracle() "
        "(mlo::one_step()) or mlo::finite_difference_oracle() (mlo::darts()) for this level",
        quoted(level.name), why);
  };
  std::optional<Evaluation> evaluation;
  at::Tensor tangent;
  try {
    evaluation = replay(level, draw);
    tangent = duals->tangent(evaluation->loss);
    if (value) *value = value_of(evaluation->loss);
  } catch (const Error& error) {
    // A loss that has been evaluated without dual numbers, and now fails in LibTorch.
    try {
      std::rethrow_if_nested(error);
    } catch (const std::exception& inner) {
      if (is_libtorch(inner))
        unsupported(
            message("needs forward derivatives that LibTorch does not have ({})", words_of(inner)));
    } catch (...) {
    }
    throw;
  }
  if (!tangent.defined() || !tangent.requires_grad()) return Tensors(wrt.size());
  // What follows is no dual number: a backward pass on them would also take its own derivative.
  duals.reset();
  if (auto unsure = unsure_after_forward(evaluation->loss, tangent);
      unsure != level.past.harmless) {
    // Once for a loss that has such operations: where in it they stand.
    const bool on = level.gradients_on;
    level.set_gradients(true);
    const std::string node = unsure_between(replay(level, draw).loss, level.parameters, wrt);
    level.set_gradients(on);
    if (!node.empty())
      unsupported(message(
          "would be wrong, because what is differentiated enters the loss through an operation "
          "whose forward derivative LibTorch does not differentiate right ({})",
          node));
    level.past.harmless = std::move(unsure);
  }
  return differentiate(level, tangent, wrt, /*create_graph=*/false);
}

Tensors differentiate(Level& level, const at::Tensor& loss, const Tensors& wrt, bool create_graph) {
  ++level.counters.backwards;
  Tensors result =
      naming<LossError>([&level] { return message("{}: the gradient of the loss", where(level)); },
                        [&] { return gradients({loss}, wrt, {}, create_graph, create_graph); });
  for (std::size_t i = 0; i < wrt.size(); ++i)
    if (result[i].defined() && result[i].layout() != at::kStrided) refuse_sparse(level, wrt[i]);
  return result;
}

}  // namespace mlo
