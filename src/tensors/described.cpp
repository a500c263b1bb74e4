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

std::string misfit(at::ArrayRef<at::Tensor> given, at::ArrayRef<at::Tensor> wanted, bool zeros) {
  if (given.size() != wanted.size())
    return message("{} tensors for {}", given.size(), wanted.size());
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (!given[i].defined()) {
      if (zeros) continue;
      return message("an undefined tensor {}, where {} is wanted", i, described(wanted[i]));
    }
    if (given[i].sizes() != wanted[i].sizes() || given[i].device() != wanted[i].device())
      return message("{} as tensor {}, where {} is wanted", described(given[i]), i,
                     described(wanted[i]));
  }
  return "";
}

}  // namespace mlo
