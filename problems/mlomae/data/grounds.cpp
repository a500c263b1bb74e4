#include "mlomae/data/grounds.h"

#include "mlomae/data/files.h"
#include "mlomae/message.h"

#include <ATen/ATen.h>
#include <mlo/data/augment.h>
#include <mlo/data/image_file.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mlomae {
namespace {

constexpr double kMean = 128.0, kDeviation = 50.0;

uint8_t byte_of(double value) {
  return static_cast<uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
}

// [size, size / 2 + 1], scaled so that an image of this spectrum deviates by kDeviation from its
// mean, whatever the phases: by Parseval its sum of squares is that of the whole spectrum over
// size².
at::Tensor amplitudes(int64_t size) {
  at::Tensor amplitude = torch::zeros({size, size / 2 + 1}, at::kDouble);
  auto* out = amplitude.mutable_data_ptr<double>();
  double squares = 0.0;
  for (int64_t y = 0; y < size; ++y)
    for (int64_t x = 0; x < size; ++x) {
      const int64_t fy = std::min(y, size - y), fx = std::min(x, size - x), f = fy * fy + fx * fx;
      if (f == 0) continue;
      squares += 1.0 / static_cast<double>(f);
      if (x <= size / 2) out[y * (size / 2 + 1) + x] = 1.0 / std::sqrt(static_cast<double>(f));
    }
  return amplitude * (kDeviation * static_cast<double>(size * size) / std::sqrt(squares));
}

void paste(at::Tensor& image, const at::Tensor& piece, int64_t top, int64_t left) {
  image.narrow(1, top, piece.size(1)).narrow(2, left, piece.size(2)).copy_(piece);
}

}  // namespace

Ground noise_ground(int64_t channels, int64_t size) {
  return [=, amplitude = amplitudes(size)](Draws& draws) {
    at::Tensor white = torch::empty({channels, size, size}, at::kDouble);
    auto* value = white.mutable_data_ptr<double>();
    for (int64_t i = 0; i < white.numel(); ++i) value[i] = draws.between(-0.5, 0.5);
    // In double, so that no rounding of another transform changes a byte.
    const at::Tensor spectrum = at::fft_rfft2(white).sgn() * amplitude;
    return (at::fft_irfft2(spectrum, at::IntArrayRef{size, size}) + kMean)
        .round()
        .clamp(0, 255)
        .to(at::kByte);
  };
}

Ground stripes_ground(int64_t channels, int64_t size) {
  return [=](Draws& draws) {
    constexpr double kPi = std::numbers::pi, kNoise = 30.0;
    const double angle = draws.between(0.0, kPi), phase = draws.between(0.0, 2.0 * kPi),
                 frequency = 2.0 * kPi / draws.between(3.0, 12.0);
    const double fx = frequency * std::cos(angle), fy = frequency * std::sin(angle);
    at::Tensor image = torch::empty({channels, size, size}, at::kByte);
    auto* out = image.mutable_data_ptr<uint8_t>();
    for (int64_t c = 0; c < channels; ++c) {
      const double contrast = draws.between(30.0, 100.0);
      for (int64_t y = 0; y < size; ++y)
        for (int64_t x = 0; x < size; ++x)
          *out++ = byte_of(kMean +
                           contrast * std::sin(fx * static_cast<double>(x) +
                                               fy * static_cast<double>(y) + phase) +
                           draws.between(-kNoise, kNoise));
    }
    return image;
  };
}

Ground clutter_ground(std::vector<at::Tensor> objects, int64_t size) {
  return [objects = std::move(objects), size](Draws& draws) {
    const int64_t side = objects.front().size(1), piece = side / 2;
    at::Tensor image = torch::empty({objects.front().size(0), size, size}, at::kByte);
    at::Tensor covered = torch::zeros({1, size, size}, at::kBool);
    const at::Tensor cover = torch::ones({1, piece, piece}, at::kBool);
    const auto* is_covered = covered.const_data_ptr<bool>();
    // Pixels in a random order: each that is bare gets a piece that covers it.
    std::vector<int64_t> pixels(static_cast<std::size_t>(size * size));
    for (std::size_t i = 0; i < pixels.size(); ++i) {
      const auto other = static_cast<std::size_t>(draws.below(static_cast<int64_t>(i) + 1));
      pixels[i] = pixels[other];
      pixels[other] = static_cast<int64_t>(i);
    }
    const auto start = [&](int64_t pixel) {
      return std::clamp<int64_t>(pixel - draws.below(piece), 0, size - piece);
    };
    for (const int64_t pixel : pixels) {
      if (is_covered[pixel]) continue;
      const int64_t top = start(pixel / size), left = start(pixel % size);
      const auto row = static_cast<std::size_t>(draws.below(static_cast<int64_t>(objects.size())));
      const int64_t y = draws.below(side - piece + 1), x = draws.below(side - piece + 1);
      paste(image, objects[row].narrow(1, y, piece).narrow(2, x, piece), top, left);
      paste(covered, cover, top, left);
    }
    return image;
  };
}

std::vector<at::Tensor> read_photographs(const std::filesystem::path& folder, bool train,
                                         int64_t channels, int64_t size) {
  const std::vector<std::filesystem::path> files = files_beneath(folder).images;
  require(files.size() >= 5,
          "--photographs = {}; it must hold five JPEG or PNG files or more, at any depth: there {} "
          "{}",
          folder.string(), files.size() == 1 ? "is" : "are", files.size());
  std::vector<std::filesystem::path> own;
  for (std::size_t i = 0; i < files.size(); ++i)
    if ((i % 5 == 4) != train) own.push_back(files[i]);
  const int64_t most_short = 4 * size, bytes = most_short * most_short * 3 / 2 * channels;
  const auto count = std::min(own.size(), static_cast<std::size_t>((int64_t{1} << 30) / bytes));
  std::vector<at::Tensor> held;
  for (std::size_t i = 0; i < count; ++i) {
    at::Tensor image = mlo::read_image(own[i * own.size() / count], channels);
    const int64_t height = image.size(1), width = image.size(2), shorter = std::min(height, width);
    if (shorter > most_short)
      image =
          mlo::resize_bicubic(image, height * most_short / shorter, width * most_short / shorter);
    held.push_back(image);
  }
  return held;
}

Ground photograph_ground(std::vector<at::Tensor> photographs, int64_t size) {
  return [photographs = std::move(photographs), size](Draws& draws) {
    const at::Tensor& from = photographs[static_cast<std::size_t>(
        draws.below(static_cast<int64_t>(photographs.size())))];
    const int64_t shorter = std::min(from.size(1), from.size(2)), least = std::min(size, shorter);
    // Large parts are no more frequent than small ones, by octaves.
    const double ratio = static_cast<double>(shorter) / static_cast<double>(least);
    const int64_t side = std::clamp<int64_t>(
        std::llround(static_cast<double>(least) * std::pow(ratio, draws.between(0.0, 1.0))), least,
        shorter);
    const int64_t top = draws.below(from.size(1) - side + 1),
                  left = draws.below(from.size(2) - side + 1);
    return mlo::resize_bicubic(from.narrow(1, top, side).narrow(2, left, side).contiguous(), size,
                               size);
  };
}

}  // namespace mlomae
