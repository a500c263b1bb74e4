#include "picture.h"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb_image_write.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <sstream>
#include <stdexcept>

namespace {

/// A letter as strokes: "p x y x y …" is a line through points, "e cx cy rx ry from to" a piece of
/// an ellipse (degrees, clockwise from the right). A capital is 12 high, its top at 0; small
/// letters reach from 4 to 12 and down to 16.
struct Glyph {
  double width = 4.0;
  const char* strokes = "";
};

const std::array<Glyph, 128>& glyphs() {
  static const std::array<Glyph, 128> table = [] {
    std::array<Glyph, 128> t;
    t['0'] = {7, "e 3.5 6 3.5 6 0 360"};
    t['1'] = {5, "p 0.5 2.6 3.2 0 3.2 12"};
    t['2'] = {7, "e 3.5 3.4 3.3 3.4 190 390 p 6.36 5.1 0 12 7 12"};
    t['3'] = {7, "e 3.2 3 3 3 200 450 e 3.2 9 3.6 3 270 520"};
    t['4'] = {7.5, "p 5.5 12 5.5 0 0 8.5 7.5 8.5"};
    t['5'] = {7, "p 6.3 0 1.1 0 0.75 5.5 e 3.3 8.2 3.6 3.8 225 505"};
    t['6'] = {7, "e 3.5 8.3 3.5 3.7 0 360 e 7 8.3 7 8.3 180 260"};
    t['7'] = {7, "p 0 0 7 0 2.5 12"};
    t['8'] = {7, "e 3.5 3 2.9 3 0 360 e 3.5 9 3.5 3 0 360"};
    t['9'] = {7, "e 3.5 3.7 3.5 3.7 0 360 e 0 3.7 7 8.3 0 80"};
    t['.'] = {1, "p 0.5 11.7 0.5 12"};
    t[','] = {1.5, "p 1 11.5 0.2 14"};
    t[':'] = {1, "p 0.5 5 0.5 5.3 p 0.5 11.7 0.5 12"};
    t[';'] = {1.5, "p 1 5 1 5.3 p 1 11.5 0.2 14"};
    t['%'] = {10.5, "e 2 3 2 3 0 360 e 8.5 9 2 3 0 360 p 8.6 0 1.9 12"};
    t['-'] = {4.5, "p 0 7.4 4.5 7.4"};
    t['+'] = {7, "p 3.5 4 3.5 11 p 0 7.5 7 7.5"};
    t['='] = {7, "p 0 5.8 7 5.8 p 0 9.2 7 9.2"};
    t['/'] = {5, "p 5 -0.5 0 13"};
    t['('] = {2.5, "e 5 6 5 8.5 130 230"};
    t[')'] = {2.5, "e -2.5 6 5 8.5 -50 50"};
    t['\''] = {1, "p 0.5 0 0.5 3"};
    t['A'] = {8, "p 0 12 4 0 8 12 p 1.4 8 6.6 8"};
    t['B'] = {7,
              "p 3.6 12 0 12 0 0 3.4 0 p 0 5.8 3.6 5.8 e 3.4 2.9 2.9 2.9 270 450 e 3.6 8.9 3.3 3.1 "
              "270 450"};
    t['C'] = {8, "e 4.4 6 4.4 6 45 315"};
    t['D'] = {8, "p 3 12 0 12 0 0 3 0 e 3 6 5 6 270 450"};
    t['E'] = {6.5, "p 6.5 0 0 0 0 12 6.5 12 p 0 5.8 5.8 5.8"};
    t['F'] = {6.5, "p 6.5 0 0 0 0 12 p 0 5.8 5.6 5.8"};
    t['G'] = {8.6, "e 4.4 6 4.4 6 20 315 p 5 6.8 8.6 6.8 8.53 8.05"};
    t['H'] = {8, "p 0 0 0 12 p 8 0 8 12 p 0 6 8 6"};
    t['I'] = {1, "p 0.5 0 0.5 12"};
    t['J'] = {5, "p 5 0 5 9 e 2.5 9 2.5 3 0 170"};
    t['K'] = {7.5, "p 0 0 0 12 p 7 0 0 7.4 p 2.6 4.9 7.5 12"};
    t['L'] = {6, "p 0 0 0 12 6 12"};
    t['M'] = {9.5, "p 0 12 0 0 4.75 8 9.5 0 9.5 12"};
    t['N'] = {8, "p 0 12 0 0 8 12 8 0"};
    t['O'] = {9, "e 4.5 6 4.5 6 0 360"};
    t['P'] = {7, "p 0 12 0 0 3.6 0 e 3.6 3.3 3.3 3.3 270 450 p 3.6 6.6 0 6.6"};
    t['Q'] = {9, "e 4.5 6 4.5 6 0 360 p 5.5 9 9 12.8"};
    t['R'] = {7, "p 0 12 0 0 3.6 0 e 3.6 3.3 3.3 3.3 270 450 p 3.6 6.6 0 6.6 p 3.4 6.6 7 12"};
    t['S'] = {7, "e 3.6 3 3.1 3 90 330 e 3.5 9 3.5 3 270 515"};
    t['T'] = {8, "p 0 0 8 0 p 4 0 4 12"};
    t['U'] = {8, "p 0 0 0 8 e 4 8 4 4 0 180 p 8 8 8 0"};
    t['V'] = {8, "p 0 0 4 12 8 0"};
    t['W'] = {11, "p 0 0 2.75 12 5.5 2 8.25 12 11 0"};
    t['X'] = {7.5, "p 0 0 7.5 12 p 7.5 0 0 12"};
    t['Y'] = {8, "p 0 0 4 6 8 0 p 4 6 4 12"};
    t['Z'] = {7, "p 0 0 7 0 0 12 7 12"};
    t['a'] = {6.6, "e 3.3 8 3.3 4 0 360 p 6.6 4 6.6 12"};
    t['b'] = {6.6, "p 0 0 0 12 e 3.3 8 3.3 4 0 360"};
    t['c'] = {6, "e 3.3 8 3.3 4 48 312"};
    t['d'] = {6.6, "e 3.3 8 3.3 4 0 360 p 6.6 0 6.6 12"};
    t['e'] = {6.6, "p 0 7.8 6.6 7.8 e 3.3 8 3.3 4 45 357"};
    t['f'] = {4, "p 1.6 12 1.6 2.6 e 4 2.6 2.4 2.6 180 280 p 0 4.4 4 4.4"};
    t['g'] = {6.6, "e 3.3 8 3.3 4 0 360 p 6.6 4 6.6 12.8 e 3.3 12.8 3.3 3.2 0 160"};
    t['h'] = {6, "p 0 0 0 12 e 3 7 3 3 180 360 p 6 7 6 12"};
    t['i'] = {1, "p 0.5 4 0.5 12 p 0.5 0.9 0.5 1.2"};
    t['j'] = {2, "p 1.5 4 1.5 13.5 e -0.3 13.5 1.8 2.5 0 80 p 1.5 0.9 1.5 1.2"};
    t['k'] = {6, "p 0 0 0 12 p 5.5 4 0 9 p 2.2 7 6 12"};
    t['l'] = {1, "p 0.5 0 0.5 12"};
    t['m'] = {10,
              "p 0 4 0 12 e 2.5 6.6 2.5 2.6 180 360 p 5 6.6 5 12 e 7.5 6.6 2.5 2.6 180 360 p 10 "
              "6.6 10 12"};
    t['n'] = {6, "p 0 4 0 12 e 3 7 3 3 180 360 p 6 7 6 12"};
    t['o'] = {6.8, "e 3.4 8 3.4 4 0 360"};
    t['p'] = {6.6, "p 0 4 0 16 e 3.3 8 3.3 4 0 360"};
    t['q'] = {6.6, "e 3.3 8 3.3 4 0 360 p 6.6 4 6.6 16"};
    t['r'] = {3.8, "p 0 4 0 12 e 3.2 7.2 3.2 3.2 180 280"};
    t['s'] = {5.4, "e 2.7 6 2.4 2 90 330 e 2.7 10 2.7 2 270 515"};
    t['t'] = {4, "p 1.6 1 1.6 9.8 e 3.6 9.8 2 2.2 90 180 p 0 4.4 4 4.4"};
    t['u'] = {6, "p 0 4 0 9 e 3 9 3 3 0 180 p 6 4 6 12"};
    t['v'] = {6, "p 0 4 3 12 6 4"};
    t['w'] = {9, "p 0 4 2.3 12 4.5 5 6.7 12 9 4"};
    t['x'] = {6, "p 0 4 6 12 p 6 4 0 12"};
    t['y'] = {6, "p 0 4 3 12 p 6 4 3 12 1.5 16"};
    t['z'] = {5.5, "p 0 4 5.5 4 0 12 5.5 12"};
    return t;
  }();
  return table;
}

constexpr double kCapital = 12.0, kSpacing = 2.5;

Glyph glyph(char letter) {
  const auto code = static_cast<unsigned char>(letter);
  return code < 128 ? glyphs()[code] : Glyph{};
}

/// Calls add(x0, y0, x1, y1) for each piece of the letter.
template <class Add>
void outline(const Glyph& letter, Add add) {
  std::istringstream words(letter.strokes);
  std::string word, kind;
  while (words >> word) {
    kind = word;
    if (kind == "e") {
      double cx, cy, rx, ry, from, to;
      words >> cx >> cy >> rx >> ry >> from >> to;
      const int pieces = std::max(2, static_cast<int>(std::abs(to - from) / 15.0));
      const auto x = [&](int i) {
        return cx + rx * std::cos((from + (to - from) * i / pieces) * std::numbers::pi / 180.0);
      };
      const auto y = [&](int i) {
        return cy + ry * std::sin((from + (to - from) * i / pieces) * std::numbers::pi / 180.0);
      };
      for (int i = 0; i < pieces; ++i) add(x(i), y(i), x(i + 1), y(i + 1));
    } else {
      double x0, y0, x1, y1;
      words >> x0 >> y0;
      while (words >> std::ws && !std::isalpha(words.peek()) && words >> x1 >> y1) {
        add(x0, y0, x1, y1);
        x0 = x1, y0 = y1;
      }
    }
  }
}

}  // namespace

Picture::Picture(int width, int height)
    : width_(width),
      height_(height),
      pixels_(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3, 1.0F) {}

void Picture::blend(int x, int y, Color color, double coverage) {
  if (x < 0 || y < 0 || x >= width_ || y >= height_ || coverage <= 0.0) return;
  float* pixel = pixels_.data() + 3 * (static_cast<std::ptrdiff_t>(y) * width_ + x);
  const float alpha = color.alpha * static_cast<float>(std::min(coverage, 1.0));
  pixel[0] += alpha * (color.r - pixel[0]);
  pixel[1] += alpha * (color.g - pixel[1]);
  pixel[2] += alpha * (color.b - pixel[2]);
}

void Picture::rectangle(double left, double top, double right, double bottom, Color color) {
  const auto overlap = [](int pixel, double from, double to) {
    return std::min(pixel + 1.0, to) - std::max<double>(pixel, from);
  };
  for (int y = static_cast<int>(std::floor(top)); y < bottom; ++y)
    for (int x = static_cast<int>(std::floor(left)); x < right; ++x)
      blend(x, y, color, overlap(x, left, right) * overlap(y, top, bottom));
}

// The strokes cover a pixel together as much as the nearest one does, so that crossings and joints
// do not show.
void Picture::stroke(const std::vector<Segment>& segments, double width, Color color) {
  if (segments.empty()) return;
  double left = 1e9, top = 1e9, right = -1e9, bottom = -1e9;
  for (const Segment& s : segments) {
    left = std::min({left, s.x0, s.x1}), right = std::max({right, s.x0, s.x1});
    top = std::min({top, s.y0, s.y1}), bottom = std::max({bottom, s.y0, s.y1});
  }
  const double reach = width / 2 + 1.0;
  for (int y = static_cast<int>(top - reach); y <= bottom + reach; ++y)
    for (int x = static_cast<int>(left - reach); x <= right + reach; ++x) {
      double nearest = 1e9;
      for (const Segment& s : segments) {
        const double dx = s.x1 - s.x0, dy = s.y1 - s.y0, px = x + 0.5 - s.x0, py = y + 0.5 - s.y0;
        const double length = dx * dx + dy * dy,
                     along = length > 0 ? std::clamp((px * dx + py * dy) / length, 0.0, 1.0) : 0.0;
        nearest = std::min(nearest, std::hypot(px - along * dx, py - along * dy));
      }
      blend(x, y, color, width / 2 - nearest + 0.5);
    }
}

void Picture::line(double x0, double y0, double x1, double y1, double width, Color color) {
  stroke({{x0, y0, x1, y1}}, width, color);
}

double Picture::text_width(double size, std::string_view text) {
  double width = 0.0;
  for (const char letter : text) width += glyph(letter).width + kSpacing;
  return text.empty() ? 0.0 : (width - kSpacing) * size / kCapital;
}

void Picture::text(double x, double y, double size, std::string_view text, Color color, Align align,
                   double weight) {
  if (align != Align::left) x -= text_width(size, text) * (align == Align::center ? 0.5 : 1.0);
  const double scale = size / kCapital;
  for (const char letter : text) {
    std::vector<Segment> segments;
    outline(glyph(letter), [&](double x0, double y0, double x1, double y1) {
      segments.push_back({x + x0 * scale, y + (y0 - kCapital) * scale, x + x1 * scale,
                          y + (y1 - kCapital) * scale});
    });
    stroke(segments, weight * std::max(1.15, 0.105 * size), color);
    x += (glyph(letter).width + kSpacing) * scale;
  }
}

void Picture::image(int left, int top, const uint8_t* pixels, int side, int scale) {
  for (int y = 0; y < side * scale; ++y)
    for (int x = 0; x < side * scale; ++x) {
      const float grey = 1.0F - static_cast<float>(pixels[(y / scale) * side + x / scale]) / 255.0F;
      blend(left + x, top + y, {grey, grey, grey}, 1.0);
    }
}

void Picture::write_png(const std::filesystem::path& file) const {
  std::vector<uint8_t> bytes(pixels_.size());
  std::transform(pixels_.begin(), pixels_.end(), bytes.begin(), [](float value) {
    return static_cast<uint8_t>(std::clamp(value, 0.0F, 1.0F) * 255.0F + 0.5F);
  });
  if (!stbi_write_png(file.c_str(), width_, height_, 3, bytes.data(), 3 * width_))
    throw std::runtime_error("cannot write " + file.string());
}
