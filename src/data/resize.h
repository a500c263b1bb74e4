#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mlo {

struct Range {
  int64_t begin = 0, count = 0;
};

/// The given rows and columns of resize_bicubic(image, height, width), to the bit, at the cost of
/// the part alone: of a long and narrow image the whole may be many times what memory holds.
at::Tensor resized_part(const at::Tensor& image, int64_t height, int64_t width, const Range& rows,
                        const Range& columns);

}  // namespace mlo
