#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace mlo {

/// Decoded pixels, row by row, channels interleaved. 8 bits a channel; colour as RGB, 1 channel as
/// grey.
struct Pixels {
  int64_t width = 0, height = 0, channels = 0;
  std::vector<uint8_t> values = {};
  int orientation = 1;  // EXIF's
};
/// Throw mlo::Error: what is wrong with the bytes, without the file's name.
Pixels decode_jpeg(const std::vector<uint8_t>& bytes);
Pixels decode_png(const std::vector<uint8_t>& bytes);

/// Whether an image that so many bytes announce may be decoded: what needs more memory is damaged,
/// or made to exhaust it.
bool may_be_decoded(int64_t width, int64_t height, int64_t channels, std::size_t bytes);

}  // namespace mlo
