#include "precompiled.h"

#include "hypergradient/note_error.h"
#include "mlo/hypergradient/presets.h"
#include "optim/update_rule.h"

#include <algorithm>

namespace mlo {
namespace {

/// θ_{i+1} = θ_i − U(∇L(θ_i, t_i)), i = 0…K−1, with θ_0 held. Backwards: ḡ from the update's
/// derivative, then θ̄ += H ḡ and t̄ += (∂²L/∂t∂θ) ḡ by one joint product at the step's own values,
/// batch and draws.
class Unrolled final : public Method {
 public:
  explicit Unrolled(std::unique_ptr<Oracle> oracle) : oracle_(std::move(oracle)) {}

  std::string name() const override { return message("unrolled × {}", oracle_->name()); }

  Needs needs() const override {
    Needs needs = oracle_->needs();
    needs.trajectory = needs.optimizer_trajectory = true;
    return needs;
  }

  void visit(Visit& visit) override {
    Tensors theta = clone(visit.adjoint());
    std::vector<Tensors> moments;
    double error = 0.0;
    for (std::size_t i = visit.steps(); i-- > 0;) {
      const Tensors g = visit.step(i).derivative->reverse(theta, moments);
      const auto probe = visit.probe(i, EvaluationPoint::before_step);
      const auto linearization = oracle_->linearize(*probe, visit.targets());
      const bool first = i == 0;  // nobody asks for the adjoint of θ_0
      Tensors products =
          linearization->product(g, first ? Linearization::Wrt::targets : Linearization::Wrt::both,
                                 /*last=*/true);
      const auto own = products.begin() + (first ? 0 : static_cast<std::ptrdiff_t>(theta.size()));
      if (!first) add_scaled(theta, Tensors(products.begin(), own));
      Tensors share(own, products.end());
      for (auto& product : share)
        if (product.defined()) product = -product;  // Visit subtracts, t̄ adds
      visit.subtract(share);
      error = std::max(error, linearization->error());
    }
    summary_ = {.reason = SolveSummary::Reason::direct,
                .iterations = static_cast<int64_t>(visit.steps())};
    note_error(summary_, error, visit.level());
  }

  SolveSummary summary() const override { return summary_; }

 private:
  std::unique_ptr<Oracle> oracle_;
  SolveSummary summary_;
};

}  // namespace

std::unique_ptr<Method> unrolled(std::unique_ptr<Oracle> oracle) {
  return std::make_unique<Unrolled>(oracle ? std::move(oracle)
                                           : exact_oracle({.keep_graph = false}));
}

}  // namespace mlo
