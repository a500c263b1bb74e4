#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace mlo {

/// "[2, 3]"
std::string shape_of(at::IntArrayRef sizes);

/// "Float [2, 3] on cpu"
std::string described(at::ScalarType dtype, at::IntArrayRef sizes, at::Device device);

/// The same, with the layout where it is not dense.
std::string described(const at::Tensor& tensor);

}  // namespace mlo
