#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

/// The list-of-tensors layer: what adjoints, solvers and oracles compute with. Every sum over
/// elements passes through `dot`, so that a distributed run has one place to reduce in; one process
/// adds nothing there.
#pragma GCC visibility push(default)
namespace mlo {

/// One tensor for each parameter of a level, in the order of registration.
using Tensors = std::vector<at::Tensor>;

// An undefined entry stands for zeros: it adds nothing to a sum, and stays undefined where a list
// is scaled or copied. Lists of different lengths and tensors of different shapes are an Error.

/// Σ over all tensors of aᵢ·bᵢ. Accumulated in double on the CPU, whatever the dtype, and the same
/// for any number of threads; elsewhere in the wider dtype of float32 and the tensors' own.
double dot(const Tensors& a, const Tensors& b);
/// √dot(a, a).
double norm(const Tensors& a);
/// Number of elements in all tensors.
int64_t numel(const Tensors& a);

/// y ← y + alpha·x in place; every y[i] is defined.
void add_scaled(Tensors& y, const Tensors& x, double alpha = 1.0);
/// a ← factor·a in place.
void scale(Tensors& a, double factor);
/// factor·a as new tensors.
Tensors scaled(const Tensors& a, double factor);
/// Copies that share nothing with `a`.
Tensors clone(const Tensors& a);
/// Zeros of the same shapes and devices, in float32 or wider.
Tensors zeros_like(const Tensors& a);
/// The same values in float32 or wider; an undefined entry becomes zeros shaped like `like[i]`.
Tensors widened(Tensors a, const Tensors& like);
/// True if no element is infinite or not-a-number.
bool all_finite(const Tensors& a);
/// dst[i] ← src[i], element by element, without a trace for autograd: also the version counters of
/// dst do not move. All entries are defined; src may be of another dtype or layout.
void copy_values(const Tensors& dst, const Tensors& src);

}  // namespace mlo
#pragma GCC visibility pop
