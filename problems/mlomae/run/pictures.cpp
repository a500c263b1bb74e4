#include "mlomae/run/pictures.h"

#include <torch/types.h>

#include <array>
#include <cmath>

namespace mlomae {
namespace {

// Nine points of matplotlib's viridis; between them colours are mixed.
constexpr std::array<std::array<double, 3>, 9> kViridis = {{{68, 1, 84},
                                                            {71, 44, 122},
                                                            {59, 81, 139},
                                                            {44, 113, 142},
                                                            {33, 144, 141},
                                                            {39, 173, 129},
                                                            {92, 200, 99},
                                                            {170, 220, 50},
                                                            {253, 231, 37}}};

// [N] → [S, S], each value on its patch.
at::Tensor on_pixels(const at::Tensor& patches, int64_t size) {
  const auto side =
      static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(patches.numel()))));
  const int64_t scale = size / side;
  return patches.view({side, 1, side, 1})
      .expand({side, scale, side, scale})
      .reshape({side * scale, side * scale});
}

}  // namespace

at::Tensor picture(const at::Tensor& image) {
  return image.expand({3, image.size(1), image.size(2)}).contiguous();
}

at::Tensor masked_picture(const at::Tensor& image, const at::Tensor& masked) {
  const at::Tensor hidden = on_pixels(masked.to(at::kBool), image.size(1));
  return picture(image).masked_fill(hidden.unsqueeze(0), 150);
}

at::Tensor heat_map(const at::Tensor& values, int64_t size) {
  const at::Tensor v = values.to(at::kDouble).clamp(0.0, 1.0).flatten().contiguous();
  at::Tensor colours = torch::empty({3, v.numel()}, at::kByte);
  for (int64_t i = 0; i < v.numel(); ++i) {
    const double place = v.const_data_ptr<double>()[i] * static_cast<double>(kViridis.size() - 1);
    const auto lower = std::min(static_cast<std::size_t>(place), kViridis.size() - 2);
    const double part = place - static_cast<double>(lower);
    for (std::size_t c = 0; c < 3; ++c)
      colours[static_cast<int64_t>(c)][i] = static_cast<uint8_t>(
          std::lround((1 - part) * kViridis[lower][c] + part * kViridis[lower + 1][c]));
  }
  return torch::stack({on_pixels(colours[0], size), on_pixels(colours[1], size),
                       on_pixels(colours[2], size)})
      .contiguous();
}

at::Tensor side_by_side(const std::vector<at::Tensor>& pictures, int64_t gap) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& p : pictures) {
    if (!parts.empty()) parts.push_back(torch::full({3, p.size(1), gap}, 255, at::kByte));
    parts.push_back(p);
  }
  return torch::cat(parts, 2);
}

at::Tensor enlarged(const at::Tensor& picture, int64_t factor) {
  return picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2).contiguous();
}

}  // namespace mlomae
