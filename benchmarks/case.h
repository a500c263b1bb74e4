#pragma once

#include <mlo/engine.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace bench {

/// One way of doing a case's work: `steps(n)` takes n outer steps and is timed.
struct Contestant {
  std::string method;  ///< "darts", "one_step", … ; by hand: "darts by hand", …
  std::function<void(int64_t)> steps;
  std::function<mlo::Counters()> counters;  ///< summed over the levels, of all steps so far; null by hand
};

struct Case {
  std::string name;
  std::string what;          ///< one line for `list`
  int64_t steps_a_repeat;    ///< outer steps timed together
  std::function<std::vector<Contestant>()> contestants;
};

/// Sum over an engine's levels.
mlo::Counters total_counters(const mlo::Engine& engine);

/// A contestant that is an engine: keeps it alive.
Contestant engine_contestant(std::string method, std::shared_ptr<mlo::Engine> engine);

Case logistic_case();
Case cnn_case();
/// 2^layers paths.
Case paths_case(int64_t layers);

}  // namespace bench
