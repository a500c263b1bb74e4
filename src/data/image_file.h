#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace mlo {

/// Decoded pixels, row by row, channels interleaved. 8 bits a channel; colour as RGB, 1 channel as grey.
struct Pixels {
  int64_t width = 0, height = 0, channels = 0;
  std::vector<uint8_t> values = {};
};
/// Throw mlo::Error: what is wrong with the bytes, without the file's name.
Pixels decode_jpeg(const std::vector<uint8_t>& bytes);
Pixels decode_png(const std::vector<uint8_t>& bytes);

/// No image is larger; what announces more is damaged, or made to exhaust memory.
constexpr int64_t kMostPixels = int64_t{1} << 28;

}  // namespace mlo
