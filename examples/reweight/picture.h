#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

/// A canvas with anti-aliased rectangles, lines and text, written as PNG: just enough for a chart.
/// Coordinates are pixels, y downwards, and may be fractions.
class Picture {
 public:
  struct Color {
    float r, g, b;
    float alpha = 1.0F;
  };
  enum class Align { left, center, right };

  Picture(int width, int height);
  void rectangle(double left, double top, double right, double bottom, Color color);
  void line(double x0, double y0, double x1, double y1, double width, Color color);
  /// `y` is the baseline, `size` the height of a capital letter. ASCII; other characters leave a
  /// gap.
  void text(double x, double y, double size, std::string_view text, Color color,
            Align align = Align::left, double weight = 1.0);
  static double text_width(double size, std::string_view text);
  /// A grey image of side×side bytes, dark on light, each of its pixels `scale` pixels wide.
  void image(int left, int top, const uint8_t* pixels, int side, int scale);
  /// Throws std::runtime_error if the file cannot be written.
  void write_png(const std::filesystem::path& file) const;

 private:
  struct Segment {
    double x0, y0, x1, y1;
  };
  void stroke(const std::vector<Segment>& segments, double width, Color color);
  void blend(int x, int y, Color color, double coverage);

  int width_, height_;
  std::vector<float> pixels_;
};
