#include "optim/update_rule.h"

#include "optim/fused.h"
#include "optim/rules.h"
#include "text.h"

#include <c10/util/Type.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
#include <typeinfo>

namespace mlo {
namespace {

constexpr auto kKnown =
    "known are torch::optim::SGD, torch::optim::Adam and torch::optim::AdamW (the last two without "
    "amsgrad)";

// The group of each parameter; empty, and `why`, if one is in none.
std::vector<size_t> groups_of(const torch::optim::Optimizer& optimizer, const Tensors& parameters,
                              std::string& why) {
  std::vector<size_t> result;
  const auto& groups = optimizer.param_groups();
  for (const auto& parameter : parameters) {
    size_t group = 0;
    while (group < groups.size() &&
           std::none_of(groups[group].params().begin(), groups[group].params().end(),
                        [&](const at::Tensor& t) { return t.is_same(parameter); })) {
      ++group;
    }
    if (group == groups.size()) {
      why = message("the optimizer has parameter {} of the level in none of its groups",
                    result.size());
      return {};
    }
    result.push_back(group);
  }
  return result;
}

// A class derived from a known one may step as it likes, so the class itself is asked for, or our
// own. Null: another class, or `why`.
template <class Known, class Fused, class Options>
std::unique_ptr<UpdateRule> try_rule(std::unique_ptr<UpdateRule> (*make)(detail::OptimizerView),
                                     torch::optim::Optimizer& optimizer, const Tensors& parameters,
                                     std::string& why) {
  static_assert(
      std::is_base_of_v<torch::optim::OptimizerOptions, Options>);  // not mlo's of that name
  const auto name = c10::demangle(typeid(Known).name());
  if (typeid(optimizer) != typeid(Known) && typeid(optimizer) != typeid(Fused)) {
    return nullptr;
  }
  for (const auto& group : optimizer.param_groups()) {
    const torch::optim::OptimizerOptions& given = group.options();
    const auto* options = dynamic_cast<const Options*>(&given);
    if (options == nullptr) {
      why = message("a parameter group of {} has options of another class, {}", name,
                    c10::demangle(typeid(given).name()));
      return nullptr;
    }
    if constexpr (requires { options->amsgrad(); }) {
      if (options->amsgrad()) {
        why = message("{} with amsgrad is not known; {}", name, kKnown);
        return nullptr;
      }
    }
  }
  auto groups = groups_of(optimizer, parameters, why);
  if (!why.empty()) {
    return nullptr;
  }
  return make({optimizer, std::move(groups)});
}

}  // namespace

std::unique_ptr<UpdateRule> UpdateRule::of(torch::optim::Optimizer& optimizer,
                                           const Tensors& parameters, std::string& why) {
  why.clear();
  namespace optim = torch::optim;
  auto rule = try_rule<optim::SGD, detail::FusedSgd, optim::SGDOptions>(detail::sgd_rule, optimizer,
                                                                        parameters, why);
  if (!rule && why.empty()) {
    rule = try_rule<optim::Adam, detail::FusedAdam, optim::AdamOptions>(detail::adam_rule,
                                                                        optimizer, parameters, why);
  }
  if (!rule && why.empty()) {
    rule = try_rule<optim::AdamW, detail::FusedAdamW, optim::AdamWOptions>(
        detail::adamw_rule, optimizer, parameters, why);
  }
  if (!rule && why.empty()) {
    why = message("the derivative of a step of {} is not known; {}",
                  c10::demangle(typeid(optimizer).name()), kKnown);
  }
  return rule;
}

void Clipping::apply(Tensors& a) const {
  if (gradient_.empty()) {
    return;
  }
  if (const double square = dot(gradient_, gradient_); square > 0) {
    add_scaled(a, gradient_, -dot(gradient_, a) / square);
  }
  scale(a, factor_);
}

}  // namespace mlo
