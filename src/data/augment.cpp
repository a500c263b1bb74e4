#include "mlo/data/augment.h"

#include "data/resize.h"
#include "replay/random.h"
#include "tensors/described.h"
#include "text.h"

#include <ATen/ops/narrow.h>

#include <algorithm>
#include <cmath>

namespace mlo {
namespace {

class Draws {
 public:
  explicit Draws(uint64_t key) : key_(key) {}
  double uniform(double from, double to) {
    return from +
           (to - from) * static_cast<double>(stream_key(key_, count_++, 0, 0) >> 11) * 0x1.0p-53;
  }
  int64_t below(int64_t n) {
    return std::min(static_cast<int64_t>(uniform(0.0, static_cast<double>(n))), n - 1);
  }

 private:
  uint64_t key_, count_ = 0;
};

at::Tensor part(const at::Tensor& image, int64_t top, int64_t left, int64_t height, int64_t width) {
  return image.narrow(1, top, height).narrow(2, left, width);
}

at::Tensor resized_crop(const at::Tensor& image, const RandomResizedCrop& crop, int64_t size,
                        Draws& draws) {
  const int64_t height = image.size(1), width = image.size(2);
  const auto area = static_cast<double>(height * width);
  const auto rounded = [](double x) { return static_cast<int64_t>(std::nearbyint(x)); };
  for (int tries = 0; tries < 10; ++tries) {
    const double target = area * draws.uniform(crop.smallest_area, crop.largest_area);
    const double ratio = std::exp(draws.uniform(std::log(crop.narrowest), std::log(crop.widest)));
    const int64_t w = rounded(std::sqrt(target * ratio)), h = rounded(std::sqrt(target / ratio));
    if (w < 1 || w > width || h < 1 || h > height) continue;
    const int64_t top = draws.below(height - h + 1), left = draws.below(width - w + 1);
    return resize_bicubic(part(image, top, left, h, w), size, size);
  }
  const double ratio = static_cast<double>(width) / static_cast<double>(height);
  int64_t w = width, h = height;
  if (ratio < crop.narrowest)
    h = std::max<int64_t>(rounded(static_cast<double>(w) / crop.narrowest), 1);
  if (ratio > crop.widest) w = std::max<int64_t>(rounded(static_cast<double>(h) * crop.widest), 1);
  return resize_bicubic(part(image, (height - h) / 2, (width - w) / 2, h, w), size, size);
}

at::Tensor fitted(const at::Tensor& image, int64_t size) {
  const int64_t shorter = std::min(image.size(1), image.size(2));
  const auto whole = [&](int64_t dim) { return std::max(size, size * image.size(dim) / shorter); };
  const auto middle = [&](int64_t side) {
    return Range{static_cast<int64_t>(std::nearbyint(static_cast<double>(side - size) / 2.0)),
                 size};
  };
  const int64_t height = whole(1), width = whole(2);
  return resized_part(image, height, width, middle(height), middle(width));
}

}  // namespace

void Augmentation::validate(int64_t channels) const {
  require(size >= 1, "Augmentation::size = {}; it must be at least 1", size);
  require(crop_padding >= 0, "Augmentation::crop_padding = {}; it must be at least 0",
          crop_padding);
  require(crop_padding == 0 || !resized_crop,
          "Augmentation::crop_padding and resized_crop are both given; choose one of the crops");
  if (resized_crop) {
    const auto& [smallest, largest, narrowest, widest] = *resized_crop;
    require(smallest > 0.0 && smallest <= largest && largest <= 1.0,
            "RandomResizedCrop: smallest_area = {}, largest_area = {}; it must be "
            "0 < smallest_area <= largest_area <= 1",
            smallest, largest);
    require(narrowest > 0.0 && narrowest <= widest && std::isfinite(widest),
            "RandomResizedCrop: narrowest = {}, widest = {}; it must be 0 < narrowest <= widest, "
            "and both finite",
            narrowest, widest);
  }
  const auto fits = [&](const std::vector<double>& list) {
    return list.size() == 1 || static_cast<int64_t>(list.size()) == channels;
  };
  require(fits(mean) && fits(deviation),
          "Augmentation::mean and deviation have {} and {} numbers; each must have 1, or one for "
          "each of {} channels",
          mean.size(), deviation.size(), channels);
  for (const double d : deviation)
    require(d > 0.0, "Augmentation::deviation has {}; it must be more than 0", d);
}

void augment(const at::Tensor& image, const Augmentation& augmentation, uint64_t key, float* out) {
  if (!image.defined() || image.dim() != 3 || image.scalar_type() != at::kByte)
    refuse<Error>("mlo::augment: the image is {}; give one of bytes, [channels, height, width]",
                  image.defined() ? described(image) : "undefined");
  Draws draws(key);
  const int64_t size = augmentation.size;
  const bool flip = augmentation.flip && draws.uniform(0.0, 1.0) < 0.5;
  // The part of the image that is read: `top` and `left` may lie outside, where pixels are zero.
  at::Tensor pixels = image;
  int64_t top = 0, left = 0;
  if (augmentation.resized_crop) {
    pixels = resized_crop(image, *augmentation.resized_crop, size, draws);
  } else {
    if (image.size(1) != size || image.size(2) != size) pixels = fitted(image, size);
    if (augmentation.crop_padding > 0) {
      top = draws.below(2 * augmentation.crop_padding + 1) - augmentation.crop_padding;
      left = draws.below(2 * augmentation.crop_padding + 1) - augmentation.crop_padding;
    }
  }
  pixels = pixels.contiguous();

  const int64_t y_begin = std::max<int64_t>(0, -top), y_end = std::min(size, size - top);
  const int64_t x_begin = std::max<int64_t>(0, -left), x_end = std::min(size, size - left);
  const uint8_t* in = pixels.const_data_ptr<uint8_t>();
  for (int64_t c = 0; c < pixels.size(0); ++c) {
    const auto of = [c](const std::vector<double>& list) {
      return list.size() == 1 ? list[0] : list[static_cast<std::size_t>(c)];
    };
    const auto factor = static_cast<float>(1.0 / (255.0 * of(augmentation.deviation)));
    const auto offset = static_cast<float>(-of(augmentation.mean) / of(augmentation.deviation));
    for (int64_t y = 0; y < size; ++y) {
      float* row = out + (c * size + y) * size;
      if (y < y_begin || y >= y_end || x_begin > 0 || x_end < size) std::fill_n(row, size, offset);
      if (y < y_begin || y >= y_end) continue;
      const uint8_t* v = in + (c * size + y + top) * size + left;
      for (int64_t x = x_begin; x < x_end; ++x) row[x] = static_cast<float>(v[x]) * factor + offset;
      if (flip) std::reverse(row, row + size);
    }
  }
}

}  // namespace mlo
