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

/// Why `given` is not one tensor for each of `wanted`, of its shape and on its device; "" if it is.
/// Undefined ones fit if `zeros` are allowed to be so.
std::string misfit(at::ArrayRef<at::Tensor> given, at::ArrayRef<at::Tensor> wanted, bool zeros);

}  // namespace mlo
