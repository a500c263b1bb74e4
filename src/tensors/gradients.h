#pragma once

#include "mlo/tensors.h"

namespace mlo {

/// Σ ∂outputs·directions/∂t for each t of `inputs`, by automatic differentiation; undefined where
/// an output does not depend on t, and where t does not require a gradient: the user has frozen it,
/// so it is a constant. `directions`: empty for scalars.
Tensors gradients(const Tensors& outputs, const Tensors& inputs, const Tensors& directions,
                  bool retain_graph, bool create_graph);

}  // namespace mlo
