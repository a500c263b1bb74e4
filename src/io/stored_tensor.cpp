#include "io/stored_tensor.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace mlo {

std::optional<uint64_t> bytes_of(const std::vector<int64_t>& shape, at::ScalarType type) {
  uint64_t bound = c10::elementSize(type);
  for (const int64_t n : shape)
    if (n < 0 ||
        __builtin_mul_overflow(bound, static_cast<uint64_t>(std::max<int64_t>(n, 1)), &bound) ||
        bound > INT64_MAX)
      return {};
  return std::count(shape.begin(), shape.end(), 0) != 0 ? 0 : bound;
}

at::Tensor allocated(const std::vector<int64_t>& shape, at::ScalarType type) {
  try {
    return at::empty(shape, type);
  } catch (const c10::Error&) {
    return {};
  }
}

}  // namespace mlo
