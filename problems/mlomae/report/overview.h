#pragma once

#include "mlomae/report/group_runs.h"

#include <string>
#include <vector>

namespace mlomae {

/// The runs of a page in groups, and how each group is named and coloured throughout. Refers to the
/// runs.
struct Overview {
  explicit Overview(const std::vector<Run>& runs);

  /// What a group is called among those of its data, and among all.
  std::string label(const Group& group) const;
  std::string full_label(const Group& group) const;
  /// A dot in the colour of a group, by its number.
  std::string swatch(std::size_t group) const;

  const std::vector<Run>& runs;
  const std::vector<Group> groups;
  std::vector<std::string> data;  ///< the data sets, in the order of the groups
  std::vector<int> colour;        ///< of each group, counted within its data: CSS class "c0", …
};

/// The CSS classes of the colours: those of the style sheet's palette, and once more dashed.
std::string colour_styles();

}  // namespace mlomae
