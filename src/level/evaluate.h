#pragma once

#include "level/level.h"

#include <optional>

namespace mlo {

/// One evaluation of a level's loss on a draw, with gradients on: random stream, choices, forward,
/// and the checks on what comes back. The draw keeps choices and value.
Evaluation evaluate(Level& level, Draw& draw);
/// The same again: the draw's random numbers and choices are played back.
Evaluation replay(Level& level, const Draw& draw);

/// The same two by the problem's own derivatives, if it has them: the loss, and ∂L/∂t for each t of
/// `wrt` into `gradient`. Counted as an evaluation and a reverse pass.
std::optional<Evaluation> evaluate_analytic(Level& level, Draw& draw, const Tensors& wrt,
                                            Tensors& gradient);
std::optional<Evaluation> replay_analytic(Level& level, const Draw& draw, const Tensors& wrt,
                                          Tensors& gradient);

/// ∂(∇_θ L·v)/∂t for each t of `wrt` by the problem's own derivatives, which it must have; a
/// replay.
Tensors analytic_product(Level& level, const Draw& draw, const Tensors& v, const Tensors& wrt);

/// ∂(∇_θ L·v)/∂t for each t of `wrt` by dual numbers, a replay: the loss's tangent along v at the
/// level's parameters, differentiated while they are dual. Undefined where the tangent does not
/// depend on t. Throws UnsupportedError for an operation that this is not right for. `value`: what
/// the loss was.
Tensors product_by_duals(Level& level, const Draw& draw, const Tensors& v, const Tensors& wrt,
                         double* value = nullptr);

/// ∂loss/∂t for each t, by one reverse pass counted for the level; undefined where t is frozen.
Tensors differentiate(Level& level, const at::Tensor& loss, const Tensors& wrt, bool create_graph);

/// Throws LossError if parameters have been written since they were of this version.
void check_unwritten(const Levels& levels, const Level& level, int64_t version);

/// The value of a one-element loss.
double value_of(const at::Tensor& loss);

}  // namespace mlo
