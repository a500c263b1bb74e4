#include "data/resize.h"

#include "mlo/data/augment.h"
#include "text.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

namespace mlo {
namespace {

// Pillow's Resample.c (13.0), for 8 bits a channel: coefficients in fixed point, each pass rounded
// to 8 bits. Not at::_upsample_bicubic2d_aa (LibTorch 2.11): it is 1.5 to 5 times as fast where
// there is AVX2, but half as fast elsewhere and for small grey images; its bits depend on the
// processor, are up to two levels from Pillow's on noise, and without AVX2 wrong for an image one
// pixel wide; and it cannot make a part of the result alone.
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

double scale_of(int64_t in, int64_t out) {
  return static_cast<double>(in) / static_cast<double>(out);
}
double support_of(double scale) { return 2.0 * std::max(scale, 1.0); }

// What output `i` reads of the input.
Range read_by(int64_t i, int64_t in, double scale) {
  const double center = (static_cast<double>(i) + 0.5) * scale, support = support_of(scale);
  const int64_t begin = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
  return {begin, std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), in) - begin};
}

Range read_by(const Range& wanted, int64_t in, int64_t out) {
  if (in == out) return wanted;
  const double scale = scale_of(in, out);
  const int64_t begin = read_by(wanted.begin, in, scale).begin;
  const Range last = read_by(wanted.begin + wanted.count - 1, in, scale);
  return {begin, last.begin + last.count - begin};
}

/// Along one dimension: the outputs `wanted` of `to`, from inputs that begin at `origin` of `from`.
struct Pass {
  int64_t from = 0, to = 0;
  Range wanted = {};
  int64_t origin = 0;
};

Taps taps(const Pass& pass) {
  const double scale = scale_of(pass.from, pass.to), stretch = std::max(scale, 1.0);
  const Range& wanted = pass.wanted;
  Taps t;
  t.most = static_cast<int64_t>(std::ceil(support_of(scale))) * 2 + 1;
  t.weights.resize(static_cast<std::size_t>(wanted.count * t.most));
  std::vector<double> w(static_cast<std::size_t>(t.most));
  for (int64_t i = 0; i < wanted.count; ++i) {
    const double center = (static_cast<double>(wanted.begin + i) + 0.5) * scale;
    const auto [first, count] = read_by(wanted.begin + i, pass.from, scale);
    double sum = 0.0;
    for (int64_t k = 0; k < count; ++k)
      sum += w[static_cast<std::size_t>(k)] =
          bicubic((static_cast<double>(k + first) - center + 0.5) * (1.0 / stretch));
    for (int64_t k = 0; k < count; ++k) {
      const double scaled = w[static_cast<std::size_t>(k)] / sum * (1 << kBits);
      t.weights[static_cast<std::size_t>(i * t.most + k)] =
          static_cast<int32_t>(scaled < 0.0 ? scaled - 0.5 : scaled + 0.5);
    }
    t.first.push_back(first - pass.origin);
    t.count.push_back(count);
  }
  return t;
}

uint8_t rounded(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

// [rows, width] → [rows, outputs]
void along_rows(const uint8_t* in, int64_t rows, int64_t width, const Taps& t, uint8_t* out) {
  const auto outputs = static_cast<int64_t>(t.first.size());
  for (int64_t y = 0; y < rows; ++y) {
    for (int64_t x = 0; x < outputs; ++x) {
      const auto i = static_cast<std::size_t>(x);
      const int32_t* w = t.weights.data() + x * t.most;
      const uint8_t* v = in + y * width + t.first[i];
      int32_t sum = 1 << (kBits - 1);
      for (int64_t k = 0; k < t.count[i]; ++k) sum += v[k] * w[k];
      out[y * outputs + x] = rounded(sum);
    }
  }
}

// [height, width] → [outputs, width]
void along_columns(const uint8_t* in, int64_t width, const Taps& t, uint8_t* out) {
  std::vector<int32_t> sums(static_cast<std::size_t>(width));
  for (int64_t y = 0; y < static_cast<int64_t>(t.first.size()); ++y) {
    const auto i = static_cast<std::size_t>(y);
    std::fill(sums.begin(), sums.end(), 1 << (kBits - 1));
    for (int64_t k = 0; k < t.count[i]; ++k) {
      const int32_t w = t.weights[static_cast<std::size_t>(y * t.most + k)];
      const uint8_t* row = in + (t.first[i] + k) * width;
      for (int64_t x = 0; x < width; ++x) sums[static_cast<std::size_t>(x)] += row[x] * w;
    }
    for (int64_t x = 0; x < width; ++x)
      out[y * width + x] = rounded(sums[static_cast<std::size_t>(x)]);
  }
}

at::Tensor across(const at::Tensor& image, const Pass& pass) {
  if (pass.from == pass.to) return image;
  at::Tensor out = at::empty({image.size(0), image.size(1), pass.wanted.count}, at::kByte);
  along_rows(image.const_data_ptr<uint8_t>(), image.size(0) * image.size(1), image.size(2),
             taps(pass), out.mutable_data_ptr<uint8_t>());
  return out;
}

at::Tensor down(const at::Tensor& image, const Pass& pass) {
  if (pass.from == pass.to) return image;
  const int64_t channels = image.size(0), width = image.size(2);
  at::Tensor out = at::empty({channels, pass.wanted.count, width}, at::kByte);
  const Taps t = taps(pass);
  for (int64_t c = 0; c < channels; ++c)
    along_columns(image.const_data_ptr<uint8_t>() + c * image.size(1) * width, width, t,
                  out.mutable_data_ptr<uint8_t>() + c * pass.wanted.count * width);
  return out;
}

}  // namespace

at::Tensor resized_part(const at::Tensor& image, int64_t height, int64_t width, const Range& rows,
                        const Range& columns) {
  const Range read_rows = read_by(rows, image.size(1), height),
              read_columns = read_by(columns, image.size(2), width);
  const at::Tensor read = image.narrow(1, read_rows.begin, read_rows.count)
                              .narrow(2, read_columns.begin, read_columns.count)
                              .contiguous();
  const Pass vertical{image.size(1), height, rows, read_rows.begin},
      horizontal{image.size(2), width, columns, read_columns.begin};
  // The order of the passes shows in the last bit. Pillow's rule: columns first where the height
  // shrinks much.
  const int64_t shrinks = image.size(1) - height;
  if (shrinks > 0 && shrinks > 2 * (image.size(2) - width))
    return across(down(read, vertical), horizontal);
  return down(across(read, horizontal), vertical);
}

at::Tensor resize_bicubic(const at::Tensor& image, int64_t height, int64_t width) {
  require<Error>(
      image.defined() && image.dim() == 3 && image.scalar_type() == at::kByte &&
          image.numel() > 0 && height >= 1 && width >= 1,
      "resize_bicubic: the image must be uint8 [C, H, W] with pixels in it, and the size "
      "at least 1 x 1; it is to be {} x {}",
      height, width);
  return resized_part(image, height, width, {0, height}, {0, width});
}

}  // namespace mlo
