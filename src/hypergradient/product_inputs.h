#pragma once

#include "mlo/hypergradient/oracle.h"
#include "tensors/described.h"
#include "text.h"

namespace mlo {

/// What the product with v is to be taken with respect to, counted as the product it is.
inline Tensors product_inputs(Probe& probe, const Tensors& targets, const Tensors& v,
                              Linearization::Wrt wrt) {
  if (const std::string why = misfit(v, probe.parameters(), /*zeros=*/false); !why.empty())
    refuse<Error>(
        "level {}: Linearization::product: {}; give one tensor for each of the level's "
        "parameters, of its shape",
        quoted(probe.level_name()), why);
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
