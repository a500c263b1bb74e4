#pragma once

#include <string>
#include <vector>

namespace mlo {

/// Who reads whom. Levels are numbered in their order, lowest first.
struct Graph {
  struct Node {
    std::string name;
    std::vector<std::size_t> reads;      ///< other levels whose parameters its loss depends on, through a graph
    std::vector<std::size_t> constants;  ///< ... and those it takes as constants, as declared
    bool top = false;
  };
  std::vector<Node> nodes;

  /// The levels below u that u reaches by reads and that reach u, in the order of the sweep: a level comes when no level
  /// still to come reads it. Top levels are peers: none stands below another, none responds to another. Throws
  /// UnsupportedError, naming the levels, for a nested dependence: levels below u that read each other in a circle.
  std::vector<std::size_t> responding(std::size_t u) const;
  /// The levels below u that must have taken their unroll counts before u steps: those that u reaches by reads and constants,
  /// the ones that are used before the ones that use them.
  std::vector<std::size_t> below(std::size_t u) const;

  /// One line a level: what it reads, what responds to it; for people.
  std::string to_string() const;
};

}  // namespace mlo
