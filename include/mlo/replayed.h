#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <utility>

#pragma GCC visibility push(default)
namespace mlo {
namespace detail {
/// Where `replayed` finds or leaves its choice; outside an engine's evaluation it finds none, and
/// leaves nothing.
class Choice {
 public:
  Choice();
  ~Choice();  ///< of one that was not taken, because an exception passes
  Choice(const Choice&) = delete;
  Choice& operator=(const Choice&) = delete;

  const at::Tensor* recorded() const { return recorded_; }
  at::Tensor take(at::Tensor choice);

 private:
  const at::Tensor* recorded_ = nullptr;
  bool open_ = false;
};
}  // namespace detail

/// A discrete choice inside a loss (a top-k, a sampled mask, an argmax): taken by `choose` in a
/// step's own evaluation and handed out again, in the order of the calls, when a hypergradient
/// method evaluates that loss at shifted parameters. Recomputed there it would make another
/// function of the parameters. The choice is a constant: no gradient flows through it. Outside an
/// engine it is just `choose().detach()`, and so is one inside another's `choose`: what the outer
/// one returns is what is handed out again. In a replay as many choices must be asked for as in the
/// step (LossError).
///
///     auto kept = mlo::replayed([&] { return std::get<1>(scores.topk(k)); });
template <std::invocable Choose>
at::Tensor replayed(Choose&& choose) {
  detail::Choice choice;
  if (choice.recorded()) return *choice.recorded();
  return choice.take(std::forward<Choose>(choose)());
}

/// A value of a loss as a constant for every method: `t.detach()`, which finite differences would
/// see through, because at shifted parameters they compute `t` anew. The same as `replayed([&] {
/// return t; })`.
///
///     auto weights = net(mlo::stop_gradient(losses));  // learning to reweight: no derivative by
///     way of the losses
inline at::Tensor stop_gradient(const at::Tensor& t) {
  return replayed([&] { return t; });
}

}  // namespace mlo
#pragma GCC visibility pop
