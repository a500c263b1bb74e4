#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <utility>

namespace mlo {
namespace detail {
/// Where `replayed` finds or leaves its choice; nullptr outside an engine's evaluation.
const at::Tensor* next_recorded_choice();
at::Tensor record_choice(at::Tensor choice);
}  // namespace detail

/// A discrete choice inside a loss (a top-k, a sampled mask, an argmax): taken by `choose` in a step's own evaluation and
/// handed out again, in the order of the calls, when a hypergradient method evaluates that loss at shifted parameters.
/// Recomputed there it would make another function of the parameters. The choice is a constant: no gradient flows
/// through it. Outside an engine it is just `choose().detach()`.
///
///     auto kept = mlo::replayed([&] { return std::get<1>(scores.topk(k)); });
template <std::invocable Choose>
at::Tensor replayed(Choose&& choose) {
  if (const at::Tensor* recorded = detail::next_recorded_choice()) return *recorded;
  return detail::record_choice(std::forward<Choose>(choose)());
}

}  // namespace mlo
