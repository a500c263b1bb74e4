#include "mlo/tensors.h"

#include "mlo/error.h"
#include "tensors/described.h"
#include "tensors/elementwise.h"
#include "text.h"

#include <atomic>
#include <bit>
#include <cstring>

namespace mlo {
namespace {

using detail::Wide;

// Raw pointers would read past the end where ATen would throw or, worse, broadcast.
void check_length(const char* function, const Tensors& a, const Tensors& b) {
  if (a.size() != b.size())
    refuse<Error>("mlo::{}: lists of {} and {} tensors; they must be of one length", function,
                  a.size(), b.size());
}
void check_shape(const char* function, size_t i, const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes())
    refuse<Error>("mlo::{}: tensors {} of the lists have shapes {} and {}; they must be the same",
                  function, i, shape_of(a.sizes()), shape_of(b.sizes()));
}

// Independent sums, because the compiler may not reorder one.
template <class T>
double dot_range(const T* a, const T* b, int64_t n) {
  constexpr int64_t kLanes = 8;
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) {
      sums[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
    }
  }
  for (; i < n; ++i) {
    sums[i % kLanes] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// Cut at fixed places, so that the result does not depend on the number of threads.
template <class T>
double dot_of(const T* a, const T* b, int64_t n) {
  constexpr int64_t kPart = 4096;
  if (n <= kPart) {
    return dot_range(a, b, n);
  }
  std::vector<double> parts(static_cast<size_t>((n + kPart - 1) / kPart));
  detail::over_range(n, [&](int64_t begin, int64_t end) {
    // A thread's range may end anywhere: it takes the parts that begin in it.
    for (int64_t part = (begin + kPart - 1) / kPart; part * kPart < end; ++part) {
      const int64_t first = part * kPart;
      parts[static_cast<size_t>(part)] =
          dot_range(a + first, b + first, std::min(kPart, n - first));
    }
  });
  double sum = 0;
  for (const double part : parts) {
    sum += part;
  }
  return sum;
}

// An infinity or a NaN is an exponent of ones; comparing integers vectorizes and needs no
// floating-point environment.
template <class T>
bool finite_range(const T* x, int64_t n) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t,
                                  std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
  constexpr Bits exponent = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  constexpr int64_t kBlock = 4096;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    Bits bad = 0;
    for (int64_t i = begin; i < end; ++i) {
      bad |= static_cast<Bits>((std::bit_cast<Bits>(x[i]) & exponent) == exponent);
    }
    if (bad) {
      return false;
    }
  }
  return true;
}

// One number for everything that lies on a device, so that there is one wait.
double total(const Tensors& terms) {
  double sum = 0;
  if (!terms.empty()) {
    Tensors here;
    for (const auto& term : terms) {
      here.push_back(term.to(terms[0].device(), at::kDouble));
    }
    sum = at::stack(here).sum().item<double>();
  }
  return sum;
}

}  // namespace

double dot(const Tensors& a, const Tensors& b) {
  check_length("dot", a, b);
  const at::NoGradGuard no_grad;
  double sum = 0;
  Tensors elsewhere;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!a[i].defined() || !b[i].defined()) {
      continue;
    }
    check_shape("dot", i, a[i], b[i]);
    const auto add_plain = [&](const at::Tensor& x, const at::Tensor& y) {
      return x.scalar_type() == y.scalar_type() && detail::alike(x, y) &&
             detail::with_type(x.scalar_type(), [&]<class T>(T) {
               sum += dot_of(x.const_data_ptr<T>(), y.const_data_ptr<T>(), x.numel());
             });
    };
    if (!add_plain(a[i], b[i])) {
      const auto dtype = detail::wide(at::promote_types(a[i].scalar_type(), b[i].scalar_type()));
      const auto x = detail::as(a[i], dtype).reshape(-1), y = detail::as(b[i], dtype).reshape(-1);
      if (!add_plain(x.contiguous(), y.contiguous())) {
        elsewhere.push_back(at::dot(x, y));
      }
    }
  }
  return sum + total(elsewhere);
}

double norm(const Tensors& a) { return std::sqrt(dot(a, a)); }

int64_t numel(const Tensors& a) {
  int64_t n = 0;
  for (const auto& t : a) {
    n += t.defined() ? t.numel() : 0;
  }
  return n;
}

void add_scaled(Tensors& y, const Tensors& x, double alpha) {
  check_length("add_scaled", y, x);
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < y.size(); ++i) {
    if (!x[i].defined()) {
      continue;
    }
    check_shape("add_scaled", i, y[i], x[i]);
    const bool done = y[i].scalar_type() == x[i].scalar_type() && detail::alike(y[i], x[i]) &&
                      detail::with_type(y[i].scalar_type(), [&]<class T>(T) {
                        T* to = y[i].mutable_data_ptr<T>();
                        const T* from = x[i].const_data_ptr<T>();
                        const auto factor = static_cast<Wide<T>>(alpha);
                        detail::over_range(y[i].numel(), [&](int64_t begin, int64_t end) {
                          for (int64_t k = begin; k < end; ++k) {
                            to[k] = static_cast<T>(static_cast<Wide<T>>(to[k]) +
                                                   factor * static_cast<Wide<T>>(from[k]));
                          }
                        });
                      });
    if (!done) {
      y[i].add_(x[i], alpha);
    }
  }
}

void scale(Tensors& a, double factor) {
  const at::NoGradGuard no_grad;
  for (auto& t : a) {
    if (!t.defined()) {
      continue;
    }
    const bool done = detail::plain(t) && detail::with_type(t.scalar_type(), [&]<class T>(T) {
                        T* x = t.mutable_data_ptr<T>();
                        const auto by = static_cast<Wide<T>>(factor);
                        detail::over_range(t.numel(), [&](int64_t begin, int64_t end) {
                          for (int64_t k = begin; k < end; ++k) {
                            x[k] = static_cast<T>(by * static_cast<Wide<T>>(x[k]));
                          }
                        });
                      });
    if (!done) {
      t.mul_(factor);
    }
  }
}

Tensors scaled(const Tensors& a, double factor) {
  const at::NoGradGuard no_grad;
  Tensors result;
  result.reserve(a.size());
  for (const auto& t : a) {
    result.push_back(t.defined() ? at::mul(t, factor) : at::Tensor());
  }
  return result;
}

Tensors clone(const Tensors& a) {
  const at::NoGradGuard no_grad;
  Tensors result;
  result.reserve(a.size());
  for (const auto& t : a) {
    result.push_back(t.defined() ? at::clone(t) : at::Tensor());
  }
  return result;
}

Tensors zeros_like(const Tensors& a) {
  for (const auto& t : a)
    require<Error>(t.defined(), "mlo::zeros_like: an undefined tensor has no shape; leave it out");
  Tensors result;
  result.reserve(a.size());
  for (const auto& t : a) {
    result.push_back(
        at::zeros_like(t, t.options().dtype(detail::wide(t.scalar_type())).requires_grad(false)));
  }
  return result;
}

Tensors widened(Tensors a, const Tensors& like) {
  check_length("widened", a, like);
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!a[i].defined()) {
      a[i] = at::zeros_like(
          like[i],
          like[i].options().dtype(detail::wide(like[i].scalar_type())).requires_grad(false));
      continue;
    }
    if (a[i].requires_grad()) {
      a[i] = a[i].detach();
    }
    if (const auto dtype = detail::wide(a[i].scalar_type()); dtype != a[i].scalar_type()) {
      a[i] = a[i].to(dtype);
    }
  }
  return a;
}

bool all_finite(const Tensors& a) {
  const at::NoGradGuard no_grad;
  Tensors elsewhere;
  for (const auto& t : a) {
    if (!t.defined()) {
      continue;
    }
    bool finite = true;
    const bool done = detail::plain(t) && detail::with_type(t.scalar_type(), [&]<class T>(T) {
                        const T* x = t.const_data_ptr<T>();
                        std::atomic<bool> all = true;
                        detail::over_range(t.numel(), [&](int64_t begin, int64_t end) {
                          if (!finite_range(x + begin, end - begin)) {
                            all.store(false, std::memory_order_relaxed);
                          }
                        });
                        finite = all.load();
                      });
    if (!finite) {
      return false;
    }
    if (!done) {
      elsewhere.push_back(at::isfinite(t).logical_not().any());
    }
  }
  return total(elsewhere) == 0;
}

void copy_values(const Tensors& dst, const Tensors& src) {
  check_length("copy_values", dst, src);
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < dst.size(); ++i) {
    check_shape("copy_values", i, dst[i], src[i]);
    if (dst[i].scalar_type() == src[i].scalar_type() && detail::alike(dst[i], src[i])) {
      auto* to = static_cast<char*>(dst[i].mutable_data_ptr());
      const auto* from = static_cast<const char*>(src[i].const_data_ptr());
      const auto size = static_cast<int64_t>(dst[i].element_size());
      if (to != from) {
        detail::over_range(dst[i].numel(), [&](int64_t begin, int64_t end) {
          std::memcpy(to + begin * size, from + begin * size,
                      static_cast<size_t>((end - begin) * size));
        });
      }
    } else {
      // Shares the values but not the version counter.
      dst[i].variable_data().copy_(src[i]);
    }
  }
}

}  // namespace mlo
