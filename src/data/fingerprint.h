#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace mlo::detail {

/// CRC-32 of what is added, for fingerprints of data.
class Checksum {
 public:
  void add(const void* bytes, std::size_t count);
  void add(const std::string& text);
  void add(const char* text) { add(std::string(text)); }
  /// All bytes, wherever the tensor lies and however it is laid out in memory.
  void add(const at::Tensor& tensor);
  /// As "9f3c01aa".
  std::string text() const;

 private:
  uint32_t crc_ = 0;
};

/// "Float[26, 4] 9f3c01aa": the checksum of the whole tensor, or where it has more than 4 MiB of so
/// many of its rows, at even distances (16 at least). Without a checksum where there are no values
/// to be summed up (meta, sparse, quantized) or where they are trained.
std::string fingerprint(const at::Tensor& tensor);

}  // namespace mlo::detail
