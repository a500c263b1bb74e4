#include "report.h"

#include "picture.h"

#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace {

using Color = Picture::Color;
using Align = Picture::Align;

constexpr Color kInk = {0.13F, 0.15F, 0.18F}, kGrey = {0.45F, 0.48F, 0.52F},
                kGrid = {0.90F, 0.91F, 0.92F};
constexpr Color kClean = {0.10F, 0.50F, 0.62F}, kFlipped = {0.88F, 0.42F, 0.16F};
constexpr int kWidth = 1240, kMargin = 60, kBins = 40;

Color faded(Color color, float alpha) {
  color.alpha = alpha;
  return color;
}

std::string text(const char* format, double value) {
  std::array<char, 64> buffer;
  std::snprintf(buffer.data(), buffer.size(), format, value);
  return buffer.data();
}

std::array<double, kBins> count_by_weight(const at::Tensor& weights) {
  std::array<double, kBins> counts{};
  const at::Tensor line = weights.to(at::kDouble).contiguous();
  for (int64_t i = 0; i < line.numel(); ++i)
    ++counts[static_cast<std::size_t>(
        std::clamp(static_cast<int>(line.const_data_ptr<double>()[i] * kBins), 0, kBins - 1))];
  return counts;
}

// A round number of which three to six make up `highest`.
double tick(double highest) {
  const double power = std::pow(10.0, std::floor(std::log10(highest / 3)));
  for (const double factor : {5.0, 2.0})
    if (factor * power * 3 <= highest) return factor * power;
  return power;
}

void draw_histogram(Picture& picture, const Report& report, double left, double top, double right,
                    double bottom) {
  const auto clean = count_by_weight(report.weights.masked_select(report.flipped.logical_not()));
  const auto flipped = count_by_weight(report.weights.masked_select(report.flipped));
  const double highest = 1.05 * std::max(*std::max_element(clean.begin(), clean.end()),
                                         *std::max_element(flipped.begin(), flipped.end()));
  const auto x = [&](double weight) { return left + (right - left) * weight; };
  const auto y = [&](double count) { return bottom - (bottom - top) * count / highest; };

  for (double count = tick(highest); count <= highest; count += tick(highest)) {
    picture.line(left, y(count), right, y(count), 1.0, kGrid);
    picture.text(left - 12, y(count) + 5, 10.5, text("%.0f", count), kGrey, Align::right);
  }
  const auto bars = [&](const std::array<double, kBins>& counts, Color color) {
    for (std::size_t bin = 0; bin < kBins; ++bin) {
      if (counts[bin] == 0.0) continue;
      const double from = x(static_cast<double>(bin) / kBins) + 1.0,
                   to = x(static_cast<double>(bin + 1) / kBins) - 1.0;
      picture.rectangle(from, y(counts[bin]), to, bottom, faded(color, 0.62F));
      picture.rectangle(from, y(counts[bin]) - 1.0, to, y(counts[bin]) + 1.0, color);
    }
  };
  bars(clean, kClean);
  bars(flipped, kFlipped);
  picture.line(left, bottom, right, bottom, 1.5, kInk);
  for (int i = 0; i <= 10; i += 2) {
    picture.line(x(i / 10.0), bottom, x(i / 10.0), bottom + 6, 1.5, kInk);
    picture.text(x(i / 10.0), bottom + 24, 10.5, text("%.1f", i / 10.0), kGrey, Align::center);
  }
  picture.text((left + right) / 2, bottom + 50, 12, "learned weight", kInk, Align::center);
  picture.text(left, top - 16, 12, "images", kInk, Align::left);

  const auto legend = [&](double row, Color color, const char* what, double mean) {
    const double at = left + 0.36 * (right - left);
    picture.rectangle(at, row - 13, at + 22, row + 1, faded(color, 0.75F));
    picture.text(at + 34, row, 13, what, kInk);
    picture.text(at + 34 + 190, row, 13, text("mean weight %.2f", mean), kGrey);
  };
  legend(top + 24, kClean, "label is right", report.clean_mean);
  legend(top + 52, kFlipped, "label was flipped", report.flipped_mean);
}

void draw_strip(Picture& picture, const Report& report, const at::Tensor& order, int top,
                const char* title) {
  constexpr int kScale = 3, kSide = 28 * kScale, kGap = 10;
  picture.text(kMargin, top, 14, title, kInk, Align::left, 1.25);
  const at::Tensor pixels = (report.pixels * 255.0).round().to(at::kByte).contiguous();
  int left = kMargin;
  for (int64_t i = 0; left + kSide <= kWidth - kMargin + 6; ++i, left += kSide + kGap) {
    const auto image = order[i].item<int64_t>();
    const bool flipped = report.flipped[image].item<bool>();
    const Color color = flipped ? kFlipped : kClean;
    picture.rectangle(left - 2, top + 16, left + kSide + 2, top + 20 + kSide, color);
    picture.image(left, top + 18, pixels.const_data_ptr<uint8_t>() + image * 784, 28, kScale);
    const double middle = left + kSide / 2.0;
    picture.text(middle, top + kSide + 40, 10.5, report.names[report.given[image].item<int64_t>()],
                 color, Align::center, 1.2);
    if (flipped)
      picture.text(middle, top + kSide + 58, 9.5,
                   std::string("is ") + report.names[report.truth[image].item<int64_t>()], kGrey,
                   Align::center);
  }
}

}  // namespace

void draw_report(const Report& report, const std::filesystem::path& png) {
  Picture picture(kWidth, 880);
  picture.text(kMargin, 66, 24, report.title, kInk, Align::left, 1.2);
  picture.text(kMargin, 100, 13, report.subtitle, kGrey);
  draw_histogram(picture, report, kMargin + 50, 160, kWidth - kMargin, 418);
  const at::Tensor order = report.weights.argsort();
  draw_strip(picture, report, order, 526, "Lowest weights, and the labels they were given");
  draw_strip(picture, report, order.flip(0), 714, "Highest weights");
  picture.write_png(png);
}
