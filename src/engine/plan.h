#pragma once

#include "hypergradient/sweep.h"

#include <cstddef>
#include <memory>
#include <vector>

namespace mlo {

/// What follows from the graph and the methods for one level; made once, by build().
struct LevelPlan {
  // levels that must have taken their unroll counts before this one steps
  std::vector<std::size_t> below;
  std::unique_ptr<Sweep> sweep;  // its own total derivative; null if nothing below responds to it
  // by level: its loss is differentiated by that level's parameters
  std::vector<char> differentiated;
  std::vector<char> kept;             // by level: ... or its kept gradient is, in some sweep
  std::vector<std::size_t> sweepers;  // levels whose sweeps visit this one
  bool trains_itself = false;         // its loss depends on its own parameters directly
};

}  // namespace mlo
