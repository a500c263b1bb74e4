#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

#pragma GCC visibility push(default)
namespace mlo {

/// Reads an IDX file (MNIST's format; plain or .gz) into a tensor of its shape: types 0x08 → uint8,
/// 0x09 → int8, 0x0B → int16, 0x0C → int32, 0x0D → float32, 0x0E → float64, big-endian on disk.
/// Throws mlo::Error naming the file for anything that is not a whole, well-formed file.
at::Tensor read_idx(const std::filesystem::path& file);

}  // namespace mlo
#pragma GCC visibility pop
