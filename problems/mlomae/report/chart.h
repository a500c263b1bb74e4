#pragma once

#include <string>
#include <vector>

namespace mlomae {

struct Line {
  std::string name;
  int colour = 0;  ///< of the palette, CSS class "c0", "c1", …
  std::vector<std::pair<double, double>> points;
};
/// Lines over the reconstruction steps as inline SVG in the page's colours. Lines of more than 60
/// points are smoothed (exponentially, over 3 % of them), with the raw ones faint behind. Empty
/// without points.
std::string chart(const std::string& title, const std::vector<Line>& lines);

/// Text that is safe between tags and in attributes.
std::string escaped(const std::string& text);

}  // namespace mlomae
