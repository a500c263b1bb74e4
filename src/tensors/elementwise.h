#pragma once

#include "mlo/tensors.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/FunctionRef.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <type_traits>
#include <utility>

/// Loops over the elements of tensors without a dispatch for each operation: what counts for a
/// level of twenty parameters, where one ATen call costs more than the arithmetic, and one pass
/// over memory for a level of millions.
namespace mlo::detail {

/// What a thread gets at least; a shorter loop stays in the calling thread.
inline constexpr int64_t kGrain = int64_t{1} << 15;

/// loop(begin, end) for parts of 0…n, in LibTorch's threads.
void in_threads(int64_t n, c10::function_ref<void(int64_t begin, int64_t end)> loop);

template <class F>
void over_range(int64_t n, const F& loop) {
  if (n <= kGrain) {
    loop(int64_t{0}, n);
  } else {
    in_threads(n, loop);
  }
}

/// float32, or the tensor's own dtype if that is wider.
inline at::ScalarType wide(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

/// Without the dispatch that `Tensor::to` costs also where there is nothing to do.
inline at::Tensor as(const at::Tensor& t, at::ScalarType dtype) {
  return t.scalar_type() == dtype ? t : t.to(dtype);
}

/// True if the elements lie without gaps in CPU memory.
inline bool plain(const at::Tensor& t) {
  return t.device().is_cpu() && t.layout() == at::kStrided && t.is_non_overlapping_and_dense() &&
         !t.is_neg() && !t._is_zerotensor();
}
/// True if, besides, the same offset is the same element.
inline bool alike(const at::Tensor& a, const at::Tensor& b) {
  return plain(a) && plain(b) && a.sizes() == b.sizes() &&
         ((a.is_contiguous() && b.is_contiguous()) || a.strides() == b.strides());
}

/// Calls f(T{}) with the C++ type of a real floating dtype; false where there is none.
template <class F>
bool with_type(at::ScalarType dtype, const F& f) {
  switch (dtype) {
    case at::kFloat: f(float{}); return true;
    case at::kDouble: f(double{}); return true;
    case at::kHalf: f(at::Half{}); return true;
    case at::kBFloat16: f(at::BFloat16{}); return true;
    default: return false;
  }
}
/// The type to compute in.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// The type of a formula's constants: the elements' own, so that float arithmetic stays float;
/// double beside tensors.
template <class T>
using Constant = std::conditional_t<std::is_same_v<T, at::Tensor>, double, T>;

/// condition ? a : b, for formulas that are written once for numbers and tensors.
template <class T>
T select(bool condition, T a, T b) {
  return condition ? a : b;
}
inline at::Tensor select(const at::Tensor& condition, const at::Tensor& a, double b) {
  return at::where(condition, a, b);
}

template <class T, class F, size_t N, size_t M, size_t... J, size_t... K>
void fill(const std::array<at::Tensor, N>& out, const F& f, const std::array<at::Tensor, M>& in,
          std::index_sequence<J...> /*outputs*/, std::index_sequence<K...> /*inputs*/) {
  const std::array<T*, N> to{out[J].template mutable_data_ptr<T>()...};
  const std::array<const T*, M> from{in[K].template const_data_ptr<T>()...};
  over_range(in[0].numel(), [&](int64_t begin, int64_t end) {
    // Copies that nothing else can point to: else the constants in f are read again after each
    // store.
    const F formula = f;
    const auto target = to;
    const auto source = from;
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep  // outputs are new: nothing overlaps
#endif
    for (int64_t i = begin; i < end; ++i) {
      const std::array<T, N> value = formula(source[K][i]...);
      ((target[J][i] = value[J]), ...);
    }
  });
}

/// out[k] = f(in…)[k], element by element, in the widest dtype of the inputs and float32. `f` is a
/// template: it is called with floats or doubles in one loop where all inputs lie alike in CPU
/// memory, else once with tensors. It returns std::array<T, N>, and holds its constants by value.
/// Inputs of one shape; nothing is recorded for autograd.
template <size_t N, class F, class... Inputs>
std::array<at::Tensor, N> elementwise(const F& f, const Inputs&... inputs) {
  const at::NoGradGuard no_grad;
  const auto dtype = ((inputs.scalar_type() == at::kDouble) || ...) ? at::kDouble : at::kFloat;
  const std::array<at::Tensor, sizeof...(Inputs)> in{as(inputs, dtype)...};
  if (!std::all_of(in.begin(), in.end(), [&](const at::Tensor& t) { return alike(in[0], t); })) {
    return std::apply(f, in);
  }
  std::array<at::Tensor, N> out;
  for (auto& t : out) {
    t = at::empty_like(in[0], at::TensorOptions().requires_grad(false));
  }
  if (dtype == at::kDouble) {
    fill<double>(out, f, in, std::make_index_sequence<N>{}, std::index_sequence_for<Inputs...>{});
  } else {
    fill<float>(out, f, in, std::make_index_sequence<N>{}, std::index_sequence_for<Inputs...>{});
  }
  return out;
}

}  // namespace mlo::detail
