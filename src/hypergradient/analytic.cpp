#include "precompiled.h"

#include "hypergradient/product_inputs.h"
#include "mlo/hypergradient/oracle.h"

namespace mlo {
namespace {

class AnalyticLinearization final : public Linearization {
 public:
  AnalyticLinearization(Probe& probe, const Tensors& targets) : probe_(probe), targets_(targets) {}

  Tensors product(const Tensors& v, Wrt wrt, bool /*last*/) override {
    return probe_.analytic_product(v, product_inputs(probe_, targets_, v, wrt));
  }

 private:
  Probe& probe_;
  const Tensors& targets_;
};

class AnalyticOracle final : public Oracle {
 public:
  std::string name() const override { return "analytic"; }
  Needs needs() const override { return {.analytic = true}; }
  std::unique_ptr<Linearization> linearize(Probe& probe, const Tensors& targets) const override {
    return std::make_unique<AnalyticLinearization>(probe, targets);
  }
};

}  // namespace

std::unique_ptr<Oracle> analytic_oracle() { return std::make_unique<AnalyticOracle>(); }

}  // namespace mlo
