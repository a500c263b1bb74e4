#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace mlo {

/// Bytes of a dense tensor of a shape that was read from a file. None: a size is negative, or their
/// product overflows, also where another size of 0 makes the tensor empty, because LibTorch
/// computes strides from it.
std::optional<uint64_t> bytes_of(const std::vector<int64_t>& shape, at::ScalarType type);

/// Not initialized, on the CPU; undefined where there is no memory for it.
at::Tensor allocated(const std::vector<int64_t>& shape, at::ScalarType type);

/// The most that a file of so many packed bytes is unpacked to. Photographs and digits pack 5 to 50
/// times; what claims far more, beyond a size that is harmless, is made to exhaust memory.
constexpr uint64_t most_unpacked(uint64_t packed) {
  constexpr uint64_t kHarmless = uint64_t{1} << 28;
  return packed > kHarmless / 64 ? 64 * packed : kHarmless;
}

}  // namespace mlo
