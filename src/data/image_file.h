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
/// What a file's header says of its pixels.
struct Announced {
  int64_t width = 0, height = 0, channels = 0;
  bool in_scans = false;  ///< a JPEG that is kept as coefficients of 16 bits until its last scan
};
/// Whether an image of a file of so many bytes may be read as `wanted` channels: what takes more
/// memory, decoded, converted and copied once more to be resized or turned, is damaged, or made to
/// exhaust it.
bool may_be_read(const Announced& image, int64_t wanted, uint64_t bytes);

/// For an image of `wanted` channels. Throw mlo::Error: what is wrong with the bytes, without the
/// file's name.
Pixels decode_jpeg(const std::vector<uint8_t>& bytes, int64_t wanted);
Pixels decode_png(const std::vector<uint8_t>& bytes, int64_t wanted);

}  // namespace mlo
