#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mlomae {

/// Sines and cosines of a patch's column and row, class token first (zeros): [1, 1 + side², dim],
/// float32. The first half of dim is of the column, the second of the row; each half has dim/4
/// sines, then as many cosines, of frequencies 10000^(−4i/dim) (MAE's util/pos_embed).
at::Tensor sine_cosine_positions(int64_t dim, int64_t side);

}  // namespace mlomae
