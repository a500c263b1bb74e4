#include "data/fingerprint.h"
#include "text.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linspace.h>
#include <c10/core/ScalarType.h>
#include <zlib.h>

#include <algorithm>

namespace mlo::detail {

void Checksum::add(const void* bytes, std::size_t count) {
  crc_ = static_cast<uint32_t>(::crc32_z(crc_, static_cast<const Bytef*>(bytes), count));
}

void Checksum::add(const std::string& text) { add(text.c_str(), text.size() + 1); }

void Checksum::add(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.detach().to(at::kCPU).resolve_conj().resolve_neg().contiguous();
  if (dense.nbytes() > 0) add(dense.const_data_ptr(), dense.nbytes());
}

std::string Checksum::text() const { return message("{:08x}", crc_); }

std::string fingerprint(const at::Tensor& tensor) {
  constexpr int64_t kBytes = int64_t{4} << 20, kRows = 16;
  const std::string text =
      message("{}[{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", "));
  if (tensor.layout() != c10::kStrided || tensor.is_quantized() || tensor.is_meta() ||
      tensor.requires_grad())
    return text;

  const at::NoGradGuard no_grad;
  const auto bytes = static_cast<int64_t>(tensor.nbytes());
  const int64_t rows = tensor.dim() > 0 ? tensor.size(0) : 1;
  Checksum sum;
  if (bytes <= kBytes || rows <= kRows) {
    sum.add(tensor);
  } else {
    const int64_t wanted = std::max(kRows, kBytes / (bytes / rows));
    const at::Tensor places =
        at::linspace(0, static_cast<double>(rows - 1), wanted, at::kDouble).to(at::kLong);
    sum.add(tensor.index_select(0, places.to(tensor.device())));
  }
  return text + " " + sum.text();
}

}  // namespace mlo::detail
