#pragma once

#include "mlo/io/checkpoint.h"

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// What a safetensors file holds (huggingface.co/docs/safetensors): named tensors and texts.
struct Safetensors {
  std::vector<std::pair<std::string, at::Tensor>> tensors = {};
  std::map<std::string, std::string> metadata = {};

  /// Throws mlo::Error naming what there is.
  const at::Tensor& at(const std::string& name) const;
};

/// Tensors are stored contiguous, as on the CPU: bool, uint8, int8 … int64, float16, bfloat16,
/// float32, float64, and the two float8 types. Throws mlo::Error for another type or a name given
/// twice, before anything is written.
void write_safetensors(const std::filesystem::path& file, const Safetensors& content,
                       const SinkFactory& sink = atomic_file);

/// Throws mlo::Error naming the file for anything that is not a whole, well-formed file: the
/// tensors must fill it without gap or overlap.
Safetensors read_safetensors(const std::filesystem::path& file);

}  // namespace mlo
#pragma GCC visibility pop
