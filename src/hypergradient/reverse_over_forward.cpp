#include "hypergradient/product_inputs.h"
#include "mlo/hypergradient/oracle.h"
#include "mlo/hypergradient/probe.h"

namespace mlo {
namespace {

/// The loss at θ + εv has the tangent ∇_θL·v; one backward of it gives the products.
class DualLinearization final : public Linearization {
 public:
  DualLinearization(Probe& probe, const Tensors& targets) : probe_(probe), targets_(targets) {}
  Tensors product(const Tensors& v, Wrt wrt, bool /*last*/) override {
    return probe_.forward_mode_product(v, product_inputs(probe_, targets_, v, wrt));
  }

 private:
  Probe& probe_;
  const Tensors& targets_;
};

class DualOracle final : public Oracle {
 public:
  std::string name() const override { return "reverse over forward"; }
  Needs needs() const override { return {.forward_mode = true}; }
  std::unique_ptr<Linearization> linearize(Probe& probe, const Tensors& targets) const override {
    return std::make_unique<DualLinearization>(probe, targets);
  }
};

}  // namespace

std::unique_ptr<Oracle> reverse_over_forward_oracle() { return std::make_unique<DualOracle>(); }

}  // namespace mlo
