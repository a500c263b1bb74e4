#include "precompiled.h"

#include "io/json.h"
#include "mlo/check.h"
#include "mlo/error.h"
#include "text.h"

#include <iomanip>

namespace mlo {
namespace {

using Json = nlohmann::ordered_json;

// What is worth a word: an exact method and good differences are far below.
constexpr double kNotable = 1e-2;

std::string line(const Comparison& comparison) {
  std::ostringstream text;
  text << "relative error " << brief(comparison.relative_error, 3) << ", cosine "
       << std::setprecision(6) << comparison.cosine;
  return text.str();
}

std::string line_of_differences(const Comparison& comparison) {
  return line(comparison) + " (norm " + brief(comparison.norm, 3) + " against " +
         brief(comparison.reference_norm, 3) + "; differences are good to " +
         brief(comparison.uncertainty, 3) + ")";
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
      return "the derivatives that level '" + each.level +
             "' gives are not those of its loss: mend them first";
  if (!report.resolve_failure.empty())
    return "for a comparison with the levels solved anew they must converge: a smaller learning "
           "rate, or fewer resolve_steps";
  if (most_missing(report) > kNotable)
    return "the levels solved anew have not converged: more resolve_steps, or a larger learning "
           "rate below";
  const Comparison& asked = report.resolved ? *report.resolved : report.steps_taken;
  if (asked.uncertainty > kNotable && !is_off(asked))
    return "errors below " + brief(asked.uncertainty, 3) +
           " cannot be told: the derivative is small against the rounding of the loss, or the loss "
           "has kinks; compute in float64 (module->to(at::kDouble)), or give another radius";
  if (!is_off(asked)) return "";
  if (!report.resolved)
    return "one_step() at unroll 1 and unrolled() differentiate the steps taken; what "
           "differentiates the optimum (cg, neumann) "
           "is to be "
           "compared with the levels solved anew: resolve_steps";
  if (!is_off(report.steps_taken))
    return "this is the derivative of the steps taken, which is not that of the optimum: more "
           "unroll, unrolled() or cg()";
  return "neither the derivative of the steps nor that of the optimum: train the levels below "
         "further (unroll, warmup_steps), "
         "solve more "
         "exactly (SolveSummary), and look for a detach() or a value kept between calls in their "
         "losses";
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
  std::string text = "'" + parameter + "'";
  for (std::size_t i = 0; i < index.size(); ++i)
    text += (i == 0 ? "[" : ", ") + std::to_string(index[i]);
  if (!index.empty()) text += "]";
  return text + ": " + brief(value, 3) + ", differences " + brief(reference, 3);
}

Verdict Comparison::verdict(double tolerance) const {
  if (!(tolerance > 0.0))
    throw ConfigError("Comparison::verdict: tolerance = " + number(tolerance) +
                      "; it must be positive");
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
  std::string text =
      "hypergradient of level '" + level + "' in " + std::to_string(directions) +
      (exact_directions ? directions == 1 ? " coordinate\n" : " coordinates\n" : " directions\n");
  text += "  against the steps taken:     " + line_of_differences(steps_taken) + "\n";
  if (resolved) text += "  against levels solved anew:  " + line_of_differences(*resolved) + "\n";
  for (const auto& each : solved)
    text += "    '" + each.level + "': gradient " + brief(each.gradient_before, 3) + " before, " +
            brief(each.gradient_after, 3) + " after; " + brief(each.missing, 3) +
            " of its response is missing\n";
  if (!resolve_failure.empty())
    text += "  the levels could not be solved anew: " + resolve_failure + "\n";
  for (const auto& each : analytic) {
    text += "  analytic product of '" + each.level + "':  " + line(each.product) + "\n";
    if (each.gradient)
      text += "  analytic gradient of '" + each.level + "': " + line(*each.gradient) + "\n";
  }
  const Comparison& asked = resolved ? *resolved : steps_taken;
  if (asked.worst) text += "  furthest apart: " + asked.worst->to_string() + "\n";
  text += "  " + std::to_string(evaluations) + " evaluations, for which the levels below took " +
          std::to_string(own_steps) + " steps\n";
  if (const std::string advice = next(*this); !advice.empty()) text += "  next: " + advice + "\n";
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
