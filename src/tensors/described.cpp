#include "precompiled.h"

#include "tensors/described.h"

#include "text.h"

#include <fmt/format.h>

#include <sstream>

namespace mlo {

std::string shape_of(at::IntArrayRef sizes) { return message("[{}]", fmt::join(sizes, ", ")); }

std::string described(at::ScalarType dtype, at::IntArrayRef sizes, at::Device device) {
  return message("{} {} on {}", c10::toString(dtype), shape_of(sizes), device.str());
}

std::string described(const at::Tensor& tensor) {
  const std::string text = described(tensor.scalar_type(), tensor.sizes(), tensor.device());
  if (tensor.layout() == at::kStrided) return text;
  std::ostringstream layout;
  layout << tensor.layout();
  return message("{}, {}", text, layout.str());
}

}  // namespace mlo
