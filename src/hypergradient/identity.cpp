#include "precompiled.h"

#include "mlo/error.h"
#include "mlo/hypergradient/solver.h"
#include "optim/update_rule.h"
#include "text.h"

#include <cmath>

namespace mlo {
namespace {

class Identity final : public Solver {
 public:
  explicit Identity(IdentityOptions options) : options_(options) { options_.validate(); }

  std::string name() const override { return "identity"; }
  Needs needs() const override {
    const bool of_step = options_.scale == IdentityOptions::Scale::optimizer;
    return {.update_derivative = of_step,
            .learning_rates = options_.scale == IdentityOptions::Scale::learning_rate};
  }

  Tensors solve(const LinearSystem& system, const Tensors& a, SolveSummary& summary) override {
    summary = {.reason = SolveSummary::Reason::direct};
    switch (options_.scale) {
      case IdentityOptions::Scale::optimizer: return system.record().derivative->apply(a);
      case IdentityOptions::Scale::learning_rate: {
        Tensors z(a.size());
        for (std::size_t i = 0; i < a.size(); ++i) z[i] = a[i] * system.record().learning_rates[i];
        return z;
      }
      case IdentityOptions::Scale::one: return a;
      case IdentityOptions::Scale::value: return scaled(a, options_.value);
    }
    return a;
  }

 private:
  IdentityOptions options_;
};

}  // namespace

void IdentityOptions::validate() const {
  require(std::isfinite(value) && value > 0.0,
          "IdentityOptions::value = {}; it must be positive and finite", value);
}

std::unique_ptr<Solver> identity_solver(IdentityOptions options) {
  return std::make_unique<Identity>(options);
}

}  // namespace mlo
