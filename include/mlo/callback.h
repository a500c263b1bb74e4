#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

class Engine;

/// What the engine says after a step of the top level. References are valid during the call.
struct StepReport {
  int64_t step;    ///< steps of the top level taken, counting this one
  int64_t steps;   ///< steps that the run will take
  double seconds;  ///< since this run began
  /// Level and last loss, lowest level first; read from the losses' tensors when asked for.
  std::vector<std::pair<std::string, double>> losses() const;
  /// "level.metric" and value, of the metrics returned beside the losses.
  std::vector<std::pair<std::string, double>> metrics() const;
  const Engine& engine;
};

struct ValidationReport {
  int64_t step;
  std::map<std::string, double> metrics;  ///< "level.name"
  bool best;  ///< the best so far by the early-stopping metric; false when there is none
};

/// Watches a run. What a callback throws ends the run and reaches the caller.
class Callback {
 public:
  virtual ~Callback() = default;
  virtual void on_start(const Engine& /*engine*/) {}
  virtual void on_step(const StepReport& /*report*/) {}
  virtual void on_validation(const Engine& /*engine*/, const ValidationReport& /*report*/) {}
  /// Something the user should know and that stops nothing; said once each; what build() has to say
  /// before there is a callback waits for the run.
  virtual void on_warning(const std::string& /*text*/) {}
  virtual void on_stop(const Engine& /*engine*/, const std::string& /*reason*/) {}
};

}  // namespace mlo
#pragma GCC visibility pop
