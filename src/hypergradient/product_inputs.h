#pragma once

#include "mlo/hypergradient/oracle.h"

namespace mlo {

/// What a product is to be taken with respect to, counted as the product it is.
inline Tensors product_inputs(Probe& probe, const Tensors& targets, Linearization::Wrt wrt) {
  Tensors inputs;
  if (wrt != Linearization::Wrt::targets) {
    inputs = probe.parameters();
    probe.count_hessian_product();
  }
  if (wrt != Linearization::Wrt::own) {
    inputs.insert(inputs.end(), targets.begin(), targets.end());
    probe.count_mixed_product();
  }
  return inputs;
}

}  // namespace mlo
