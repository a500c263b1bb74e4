#include "mlo/data/augment.h"
#include "mlo/error.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

namespace mlo {
namespace {

// Pillow's Resample.c (13.0), for 8 bits a channel: coefficients in fixed point, each pass rounded to 8 bits.
constexpr int kBits = 32 - 8 - 2;

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

struct Taps {
  int64_t most = 0;  // coefficients reserved for each output
  std::vector<int64_t> first, count;
  std::vector<int32_t> weights;  // [outputs, most]
};

Taps taps(int64_t in, int64_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out), stretch = std::max(scale, 1.0),
               support = 2.0 * stretch;
  Taps t;
  t.most = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  t.weights.resize(static_cast<std::size_t>(out * t.most));
  std::vector<double> w(static_cast<std::size_t>(t.most));
  for (int64_t i = 0; i < out; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t count = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), in) - first;
    double sum = 0.0;
    for (int64_t k = 0; k < count; ++k)
      sum += w[static_cast<std::size_t>(k)] = bicubic((static_cast<double>(k + first) - center + 0.5) * (1.0 / stretch));
    for (int64_t k = 0; k < count; ++k) {
      const double scaled = w[static_cast<std::size_t>(k)] / sum * (1 << kBits);
      t.weights[static_cast<std::size_t>(i * t.most + k)] = static_cast<int32_t>(scaled < 0.0 ? scaled - 0.5 : scaled + 0.5);
    }
    t.first.push_back(first);
    t.count.push_back(count);
  }
  return t;
}

uint8_t rounded(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

// [rows, in] → [rows, out]
void along_rows(const uint8_t* in, int64_t rows, int64_t width, int64_t out_width, uint8_t* out) {
  const Taps t = taps(width, out_width);
  for (int64_t y = 0; y < rows; ++y) {
    for (int64_t x = 0; x < out_width; ++x) {
      const auto i = static_cast<std::size_t>(x);
      const int32_t* w = t.weights.data() + x * t.most;
      const uint8_t* v = in + y * width + t.first[i];
      int32_t sum = 1 << (kBits - 1);
      for (int64_t k = 0; k < t.count[i]; ++k) sum += v[k] * w[k];
      out[y * out_width + x] = rounded(sum);
    }
  }
}

// [in, width] → [out, width]
void along_columns(const uint8_t* in, int64_t height, int64_t width, int64_t out_height, uint8_t* out) {
  const Taps t = taps(height, out_height);
  std::vector<int32_t> sums(static_cast<std::size_t>(width));
  for (int64_t y = 0; y < out_height; ++y) {
    const auto i = static_cast<std::size_t>(y);
    std::fill(sums.begin(), sums.end(), 1 << (kBits - 1));
    for (int64_t k = 0; k < t.count[i]; ++k) {
      const int32_t w = t.weights[static_cast<std::size_t>(y * t.most + k)];
      const uint8_t* row = in + (t.first[i] + k) * width;
      for (int64_t x = 0; x < width; ++x) sums[static_cast<std::size_t>(x)] += row[x] * w;
    }
    for (int64_t x = 0; x < width; ++x) out[y * width + x] = rounded(sums[static_cast<std::size_t>(x)]);
  }
}

at::Tensor to_width(const at::Tensor& image, int64_t width) {
  const int64_t channels = image.size(0), height = image.size(1);
  if (width == image.size(2)) return image;
  at::Tensor out = at::empty({channels, height, width}, at::kByte);
  along_rows(image.const_data_ptr<uint8_t>(), channels * height, image.size(2), width, out.mutable_data_ptr<uint8_t>());
  return out;
}

at::Tensor to_height(const at::Tensor& image, int64_t height) {
  const int64_t channels = image.size(0), from = image.size(1), width = image.size(2);
  if (height == from) return image;
  at::Tensor out = at::empty({channels, height, width}, at::kByte);
  for (int64_t c = 0; c < channels; ++c)
    along_columns(image.const_data_ptr<uint8_t>() + c * from * width, from, width, height,
                  out.mutable_data_ptr<uint8_t>() + c * height * width);
  return out;
}

}  // namespace

at::Tensor resize_bicubic(const at::Tensor& image, int64_t height, int64_t width) {
  if (!image.defined() || image.dim() != 3 || image.scalar_type() != at::kByte || image.numel() == 0 || height < 1 || width < 1)
    throw Error("resize_bicubic: expected a uint8 image [C, H, W] with pixels in it, and a size of at least 1 x 1");
  // The order of the passes shows in the last bit. Pillow's rule: columns first where the height shrinks much.
  const int64_t shrinks = image.size(1) - height;
  if (shrinks > 0 && shrinks > 2 * (image.size(2) - width)) return to_width(to_height(image.contiguous(), height), width);
  return to_height(to_width(image.contiguous(), width), height);
}

}  // namespace mlo
