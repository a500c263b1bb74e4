#pragma once

#include <string>
#include <vector>

namespace mlomae {

/// Of the words that there are (at least one), the one that the fewest edits (insert, delete,
/// replace) make of `word`.
std::string nearest(const std::string& word, const std::vector<std::string>& known);

}  // namespace mlomae
