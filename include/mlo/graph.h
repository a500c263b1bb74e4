#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// What one level does in the order of steps.
struct Turn {
  enum class Kind {
    start,  ///< its inner loop begins, before the levels below it step
    step,
    last_step  ///< before the level above steps, whose sweep may ask for it
  };
  std::size_t level;
  Kind kind;
  bool operator==(const Turn&) const = default;
};

/// Who reads whom, and who steps when. Levels are numbered in their order, lowest first.
struct Graph {
  struct Node {
    std::string name;
    /// other levels whose parameters its loss depends on, through a graph
    std::vector<std::size_t> reads;
    std::vector<std::size_t> constants;  ///< ... and those it takes as constants, as declared
    bool top = false;
    int64_t unroll = 1, warmup_steps = 0;  ///< as in LevelOptions
  };
  std::vector<Node> nodes;

  /// The levels below u that u reaches by reads and that reach u, in the order of the sweep: a
  /// level comes when no level still to come reads it. Top levels are peers: none stands below
  /// another, none responds to another. Throws UnsupportedError, naming the levels, for a nested
  /// dependence: levels below u that read each other in a circle.
  std::vector<std::size_t> responding(std::size_t u) const;
  /// The levels below u that must have taken their unroll counts before u steps: those that u
  /// reaches by reads and constants, the ones that are used before the ones that use them.
  std::vector<std::size_t> below(std::size_t u) const;

  /// The steps that lead to one step of each of `goals`, in their order and with these, as the
  /// engine takes them: a level steps when each level below it has taken its unroll count since the
  /// last time, and its warm-up. `taken`: steps that each level has taken before, for the warm-ups;
  /// none: all are over.
  std::vector<Turn> cycle(const std::vector<std::size_t>& goals,
                          const std::vector<int64_t>& taken = {}) const;

  /// One line a level: what it reads, what responds to it; and the order of steps ("one step: a ×2,
  /// b, c"); for people.
  std::string to_string() const;
};

}  // namespace mlo
#pragma GCC visibility pop
