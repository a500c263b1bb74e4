#include "mlomae/report/chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

namespace mlomae {
namespace {

constexpr double kWidth = 460, kHeight = 250, kLeft = 52, kRight = 18, kTop = 30, kBottom = 34;

std::string number(double value, const char* format = "%.4g") {
  std::array<char, 32> text = {};
  std::snprintf(text.data(), text.size(), format, value);
  return text.data();
}

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

std::vector<std::pair<double, double>> smoothed(
    const std::vector<std::pair<double, double>>& points) {
  const double memory = std::max(0.03 * static_cast<double>(points.size()), 1.0),
               keep = std::exp(-1.0 / memory);
  std::vector<std::pair<double, double>> result;
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

std::string chart(const std::string& title, const std::vector<Line>& lines) {
  double x_high = 0.0, low = std::numeric_limits<double>::infinity(), high = -low;
  std::vector<Line> shown;
  for (const Line& line : lines) {
    Line s = line;
    if (s.points.size() > 60) s.points = smoothed(line.points);
    for (const auto& [x, y] : s.points) {
      x_high = std::max(x_high, x);
      low = std::min(low, y);
      high = std::max(high, y);
    }
    shown.push_back(std::move(s));
  }
  if (!(low <= high) || x_high <= 0.0) return {};
  const double margin = high > low ? 0.06 * (high - low) : std::max(0.05 * std::abs(high), 1e-3);
  low -= margin;
  high += margin;
  const auto px = [&](double x) { return kLeft + (kWidth - kLeft - kRight) * x / x_high; };
  const auto py = [&](double y) {
    return kTop +
           (kHeight - kTop - kBottom) * (1.0 - (std::clamp(y, low, high) - low) / (high - low));
  };

  std::string svg =
      "<figure class=\"chart\"><svg viewBox=\"0 0 460 250\" role=\"img\" aria-label=\"" +
      escaped(title) + "\"><text class=\"title\" x=\"" + number(kLeft) + "\" y=\"18\">" +
      escaped(title) + "</text>";
  for (const double t : ticks(low, high))
    svg += "<line class=\"grid\" x1=\"" + number(kLeft) + "\" x2=\"" + number(kWidth - kRight) +
           "\" y1=\"" + number(py(t)) + "\" y2=\"" + number(py(t)) +
           "\"/><text class=\"tick\" text-anchor=\"end\" x=\"" + number(kLeft - 6) + "\" y=\"" +
           number(py(t) + 4) + "\">" + number(t) + "</text>";
  for (const double t : ticks(0.0, x_high))
    svg += "<text class=\"tick\" text-anchor=\"middle\" x=\"" + number(px(t)) + "\" y=\"" +
           number(kHeight - kBottom + 18) + "\">" + number(t, "%.6g") + "</text>";
  const auto path = [&](const std::vector<std::pair<double, double>>& points) {
    // More than the picture has pixels serves nobody.
    const std::size_t stride = std::max<std::size_t>(1, points.size() / 800);
    std::string d;
    for (std::size_t i = 0; i < points.size(); i += stride)
      d += (d.empty() ? "" : " ") + number(px(points[i].first), "%.1f") + "," +
           number(py(points[i].second), "%.1f");
    return d;
  };
  for (std::size_t i = 0; i < lines.size(); ++i)
    if (lines[i].points.size() > 60)
      svg += "<polyline class=\"raw c" + std::to_string(lines[i].colour) + "\" points=\"" +
             path(lines[i].points) + "\"/>";
  for (const Line& line : shown) {
    if (line.points.empty()) continue;
    svg += "<polyline class=\"c" + std::to_string(line.colour) + "\" points=\"" +
           path(line.points) + "\"><title>" + escaped(line.name) + ": " +
           number(line.points.back().second) + " at the end</title></polyline>";
    const auto& [x, y] = line.points.back();
    svg += "<circle class=\"c" + std::to_string(line.colour) + "\" cx=\"" + number(px(x)) +
           "\" cy=\"" + number(py(y)) + "\" r=\"3\"><title>" + escaped(line.name) + ": " +
           number(y) + "</title></circle>";
  }
  return svg + "</svg></figure>";
}

}  // namespace mlomae
