#pragma once

#include "mlo/hypergradient/method.h"

/// Methods by the names users know. Each is an oracle times a solver (`implicit`), or `unrolled`.
#pragma GCC visibility push(default)
namespace mlo {

/// Identity × finite difference (Liu et al. 2019, Eq. 7-8), with the scale of the step really
/// taken. Two first-order passes; no graph of second order.
std::unique_ptr<Method> darts(FiniteDifferenceOptions difference = {},
                              IdentityOptions identity = {});
/// Identity × exact (one-step, T1-T2; Bolte et al. 2023): the derivative of the last step, to
/// rounding.
std::unique_ptr<Method> one_step(ExactOptions exact = {}, IdentityOptions identity = {});
/// Neumann × exact (Lorraine et al. 2020).
std::unique_ptr<Method> neumann(NeumannOptions options = {}, ExactOptions exact = {});
/// Conjugate gradient × exact (Rajeswaran et al. 2019).
std::unique_ptr<Method> cg(ConjugateGradientOptions options = {}, ExactOptions exact = {});
/// SAMA (Choe et al. 2023): the identity scaled by the optimizer's adaptation × finite difference.
/// The same as `darts` with its default scale; here so that it is found by its name.
std::unique_ptr<Method> sama(FiniteDifferenceOptions difference = {});
/// Betty's `darts`, for comparisons: scale one, radius 0.01/‖v‖, products at the point after the
/// last step.
std::unique_ptr<Method> betty();

/// Reverse mode through all steps since the upper level's last one (SGD with momentum, Adam,
/// AdamW). Exact for what was computed; memory for θ and the optimizer's moments of each step; one
/// product by `oracle` a step.
std::unique_ptr<Method> unrolled(std::unique_ptr<Oracle> oracle = nullptr);

}  // namespace mlo
#pragma GCC visibility pop
