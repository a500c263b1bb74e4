#include "precompiled.h"

#include "io/json.h"
#include "mlo/check.h"
#include "mlo/error.h"
#include "text.h"

#include <fmt/format.h>

namespace mlo {
namespace {

using Json = nlohmann::ordered_json;

// What is worth a word: an exact method and good differences are far below.
constexpr double kNotable = 1e-2;

std::string line(const Comparison& comparison) {
  return message("relative error {:.3g}, cosine {:.6g}", comparison.relative_error,
                 comparison.cosine);
}

std::string line_of_differences(const Comparison& comparison) {
  return message("{} (norm {:.3g} against {:.3g}; differences are good to {:.3g})",
                 line(comparison), comparison.norm, comparison.reference_norm,
                 comparison.uncertainty);
}

double most_missing(const CheckReport& report) {
  double missing = 0.0;
  for (const auto& solved : report.solved) missing = std::max(missing, solved.missing);
  return missing;
}

// One sentence that says what the numbers call for; empty where they are as good as can be.
std::string next(const CheckReport& report) {
  const auto is_off = [](const Comparison& comparison) {
    return comparison.relative_error - comparison.uncertainty > kNotable;
  };
  for (const auto& each : report.analytic)
    if (is_off(each.product) || (each.gradient && is_off(*each.gradient)))
      return message(
          "the derivatives that level {} gives are not those of its loss: mend them first",
          quoted(each.level));
  if (!report.resolve_failure.empty())
    return "for a comparison with the levels solved anew they must converge: a smaller learning "
           "rate, or fewer resolve_steps";
  if (most_missing(report) > kNotable)
    return "the levels solved anew have not converged: more resolve_steps, or a larger learning "
           "rate below";
  const Comparison& asked = report.resolved ? *report.resolved : report.steps_taken;
  if (asked.uncertainty > kNotable && !is_off(asked))
    return message(
        "errors below {:.3g} cannot be told: the derivative is small against the rounding of the "
        "loss, or the loss has kinks; compute in float64 (module->to(at::kDouble)), or give "
        "another radius",
        asked.uncertainty);
  if (!is_off(asked)) return "";
  if (!report.resolved)
    return "one_step() at unroll 1 and unrolled() differentiate the steps taken; what "
           "differentiates the optimum (cg, neumann) is to be compared with the levels solved "
           "anew: resolve_steps";
  if (!is_off(report.steps_taken))
    return "this is the derivative of the steps taken, which is not that of the optimum: more "
           "unroll, unrolled() or cg()";
  return "neither the derivative of the steps nor that of the optimum: train the levels below "
         "further (unroll, warmup_steps), solve more exactly (SolveSummary), and look for a "
         "detach() or a value kept between calls in their losses";
}

Json json_of(const Comparison& comparison) {
  Json json = {{"relative_error", comparison.relative_error},
               {"cosine", comparison.cosine},
               {"uncertainty", comparison.uncertainty},
               {"norm", comparison.norm},
               {"reference_norm", comparison.reference_norm}};
  if (comparison.worst)
    json["worst"] = {{"parameter", comparison.worst->parameter},
                     {"index", comparison.worst->index},
                     {"value", comparison.worst->value},
                     {"reference", comparison.worst->reference}};
  return json;
}

}  // namespace

const char* to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::agrees: return "agrees";
    case Verdict::disagrees: return "disagrees";
    case Verdict::cannot_tell: return "cannot tell";
  }
  return "unknown";
}

std::string Comparison::Coordinate::to_string() const {
  const std::string place = index.empty() ? "" : message("[{}]", fmt::join(index, ", "));
  return message("{}{}: {:.3g}, differences {:.3g}", quoted(parameter), place, value, reference);
}

Verdict Comparison::verdict(double tolerance) const {
  require(tolerance > 0.0, "Comparison::verdict: tolerance = {}; it must be positive", tolerance);
  if (relative_error + uncertainty <= tolerance) return Verdict::agrees;
  if (relative_error - uncertainty > tolerance) return Verdict::disagrees;
  return Verdict::cannot_tell;
}

Verdict CheckReport::verdict(double tolerance) const {
  std::vector<Verdict> all = {resolved ? resolved->verdict(tolerance)
                                       : steps_taken.verdict(tolerance)};
  if (!resolve_failure.empty()) all[0] = Verdict::cannot_tell;
  for (const auto& each : analytic) {
    all.push_back(each.product.verdict(tolerance));
    if (each.gradient) all.push_back(each.gradient->verdict(tolerance));
  }
  for (const Verdict wanted : {Verdict::disagrees, Verdict::cannot_tell})
    if (std::find(all.begin(), all.end(), wanted) != all.end()) return wanted;
  return Verdict::agrees;
}

std::string CheckReport::to_string() const {
  const char* unit = !exact_directions ? "directions"
                     : directions == 1 ? "coordinate"
                                       : "coordinates";
  std::string text =
      message("hypergradient of level {} in {} {}\n", quoted(level), directions, unit);
  text += message("  against the steps taken:     {}\n", line_of_differences(steps_taken));
  if (resolved)
    text += message("  against levels solved anew:  {}\n", line_of_differences(*resolved));
  for (const auto& each : solved)
    text +=
        message("    {}: gradient {:.3g} before, {:.3g} after; {:.3g} of its response is missing\n",
                quoted(each.level), each.gradient_before, each.gradient_after, each.missing);
  if (!resolve_failure.empty())
    text += message("  the levels could not be solved anew: {}\n", resolve_failure);
  for (const auto& each : analytic) {
    text += message("  analytic product of {}:  {}\n", quoted(each.level), line(each.product));
    if (each.gradient)
      text += message("  analytic gradient of {}: {}\n", quoted(each.level), line(*each.gradient));
  }
  const Comparison& asked = resolved ? *resolved : steps_taken;
  if (asked.worst) text += message("  furthest apart: {}\n", asked.worst->to_string());
  text += message("  {} evaluations, for which the levels below took {} steps\n", evaluations,
                  own_steps);
  if (const std::string advice = next(*this); !advice.empty())
    text += message("  next: {}\n", advice);
  return text;
}

std::string CheckReport::to_json() const {
  Json json = {{"level", level},
               {"directions", directions},
               {"exact_directions", exact_directions},
               {"steps_taken", json_of(steps_taken)}};
  if (resolved) json["resolved"] = json_of(*resolved);
  if (!resolve_failure.empty()) json["resolve_failure"] = resolve_failure;
  json["solved"] = Json::array();
  for (const auto& each : solved)
    json["solved"].push_back({{"level", each.level},
                              {"gradient_before", each.gradient_before},
                              {"gradient_after", each.gradient_after},
                              {"missing", each.missing}});
  json["analytic"] = Json::array();
  for (const auto& each : analytic) {
    Json entry = {{"level", each.level}, {"product", json_of(each.product)}};
    if (each.gradient) entry["gradient"] = json_of(*each.gradient);
    json["analytic"].push_back(std::move(entry));
  }
  json["evaluations"] = evaluations;
  json["own_steps"] = own_steps;
  json["next"] = next(*this);
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace mlo
