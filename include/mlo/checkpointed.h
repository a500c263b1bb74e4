#pragma once

#include "mlo/tensors.h"

#include <functional>

#pragma GCC visibility push(default)
namespace mlo {

/// f(input), without keeping what f computes on the way: it is computed again in the backward pass
/// (activation checkpointing; Chen et al. 2016). The result can be differentiated any number of
/// times. `parameters`: what f reads besides its input and is to be differentiated by; changed in
/// place between forward and backward they are an error, as everywhere in autograd. Random draws
/// and autocast are the same both times, and the random stream goes on as if f had run once. f must
/// not call `mlo::replayed` (LossError): choices are made outside. Without gradients, and on dual
/// numbers, it is just f(input).
///
///     x = mlo::checkpointed([block](const at::Tensor& x) mutable { return block->forward(x); }, x,
///     block->parameters());
at::Tensor checkpointed(const std::function<at::Tensor(const at::Tensor&)>& f,
                        const at::Tensor& input, const Tensors& parameters);

}  // namespace mlo
#pragma GCC visibility pop
