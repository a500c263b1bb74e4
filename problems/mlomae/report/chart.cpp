#include "mlomae/report/chart.h"

#include "mlomae/message.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace mlomae {
namespace {

constexpr double kWidth = 460, kHeight = 250, kLeft = 52, kRight = 18, kTop = 30, kBottom = 34;

using Points = std::vector<std::pair<double, double>>;

std::vector<double> ticks(double low, double high) {
  const double raw = (high - low) / 4, power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = power;
  for (const double factor : {2.0, 5.0, 10.0})
    if (step < raw) step = factor * power;
  std::vector<double> result;
  for (double t = std::ceil(low / step) * step; t <= high + 1e-9 * step; t += step)
    result.push_back(std::abs(t) < 1e-9 * step ? 0.0 : t);
  return result;
}

Points smoothed(const Points& points) {
  const double memory = std::max(0.03 * static_cast<double>(points.size()), 1.0),
               keep = std::exp(-1.0 / memory);
  Points result;
  double sum = 0.0, weight = 0.0;
  for (const auto& [x, y] : points) {
    sum = keep * sum + y;
    weight = keep * weight + 1.0;
    result.emplace_back(x, sum / weight);
  }
  return result;
}

}  // namespace

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '&': safe += "&amp;"; break;
      case '<': safe += "&lt;"; break;
      case '>': safe += "&gt;"; break;
      case '"': safe += "&quot;"; break;
      case '\'': safe += "&#39;"; break;
      default: safe += c;
    }
  }
  return safe;
}

namespace {

// Where things stand on the picture.
struct Scale {
  double x_high, low, high;
  double x(double value) const { return kLeft + (kWidth - kLeft - kRight) * value / x_high; }
  double y(double value) const {
    return kTop +
           (kHeight - kTop - kBottom) * (1.0 - (std::clamp(value, low, high) - low) / (high - low));
  }
};

// Of what is shown; nothing where there is nothing.
std::optional<Scale> scale_of(const std::vector<Line>& lines) {
  double x_high = 0.0, low = std::numeric_limits<double>::infinity(), high = -low;
  for (const Line& line : lines)
    for (const auto& [x, y] : line.points) {
      x_high = std::max(x_high, x);
      low = std::min(low, y);
      high = std::max(high, y);
    }
  if (!(low <= high) || x_high <= 0.0) return {};
  const double margin = high > low ? 0.06 * (high - low) : std::max(0.05 * std::abs(high), 1e-3);
  return Scale{x_high, low - margin, high + margin};
}

std::string path(const Points& points, const Scale& at) {
  // More than the picture has pixels serves nobody.
  const std::size_t stride = std::max<std::size_t>(1, points.size() / 800);
  std::string d;
  for (std::size_t i = 0; i < points.size(); i += stride)
    d += message("{}{:.1f},{:.1f}", d.empty() ? "" : " ", at.x(points[i].first),
                 at.y(points[i].second));
  return d;
}

std::string axes(const Scale& at) {
  std::string svg;
  for (const double t : ticks(at.low, at.high))
    svg += message(
        "<line class=\"grid\" x1=\"{0:.4g}\" x2=\"{1:.4g}\" y1=\"{2:.4g}\" y2=\"{2:.4g}\"/>"
        "<text class=\"tick\" text-anchor=\"end\" x=\"{3:.4g}\" y=\"{4:.4g}\">{5:.4g}</text>",
        kLeft, kWidth - kRight, at.y(t), kLeft - 6, at.y(t) + 4, t);
  for (const double t : ticks(0.0, at.x_high))
    svg += message(
        "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.4g}\" y=\"{:.4g}\">{:.6g}</text>",
        at.x(t), kHeight - kBottom + 18, t);
  return svg;
}

std::string curve(const Line& line, const Scale& at) {
  const auto& [x, y] = line.points.back();
  return message(
      "<polyline class=\"c{0}\" points=\"{1}\"><title>{2}: {3:.4g} at the end</title></polyline>"
      "<circle class=\"c{0}\" cx=\"{4:.4g}\" cy=\"{5:.4g}\" r=\"3\"><title>{2}: {3:.4g}</title>"
      "</circle>",
      line.colour, path(line.points, at), escaped(line.name), y, at.x(x), at.y(y));
}

}  // namespace

std::string chart(const std::string& title, const std::vector<Line>& lines) {
  constexpr std::size_t kMany = 60;
  std::vector<Line> shown = lines;
  for (Line& line : shown)
    if (line.points.size() > kMany) line.points = smoothed(line.points);
  const std::optional<Scale> at = scale_of(shown);
  if (!at) return {};
  std::string svg = message(
      "<figure class=\"chart\"><svg viewBox=\"0 0 460 250\" role=\"img\" aria-label=\"{0}\">"
      "<text class=\"title\" x=\"{1:.4g}\" y=\"18\">{0}</text>",
      escaped(title), kLeft);
  svg += axes(*at);
  for (const Line& line : lines)
    if (line.points.size() > kMany)
      svg += message("<polyline class=\"raw c{}\" points=\"{}\"/>", line.colour,
                     path(line.points, *at));
  for (const Line& line : shown)
    if (!line.points.empty()) svg += curve(line, *at);
  return svg + "</svg></figure>";
}

}  // namespace mlomae
