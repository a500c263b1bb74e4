#pragma once

#include "mlomae/run/snapshot.h"

namespace mlomae {

/// All pictures: uint8 [3, S, S].
/// One image of a snapshot, grey ones in colour's shape.
at::Tensor picture(const at::Tensor& image);
/// The image with its masked patches grey. `masked`: [N].
at::Tensor masked_picture(const at::Tensor& image, const at::Tensor& masked);
/// Values 0 … 1, [N], as a map of size × size pixels in the colours of viridis.
at::Tensor heat_map(const at::Tensor& values, int64_t size);
/// Pictures side by side, `gap` pixels of white between them.
at::Tensor side_by_side(const std::vector<at::Tensor>& pictures, int64_t gap = 2);
/// Nearest-neighbour enlargement.
at::Tensor enlarged(const at::Tensor& picture, int64_t factor);

}  // namespace mlomae
