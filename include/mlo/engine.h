#pragma once

#include "mlo/callback.h"
#include "mlo/counters.h"
#include "mlo/engine_options.h"
#include "mlo/graph.h"
#include "mlo/hypergradient/solver.h"
#include "mlo/level_options.h"
#include "mlo/load_options.h"
#include "mlo/problem.h"
#include "mlo/run_summary.h"
#include "mlo/state.h"

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// Runs several optimization problems whose optima feed each other. Register levels lowest first;
/// `run` takes steps of the top level, each after the levels below have taken their unroll counts.
/// Not thread-safe, except request_stop; one engine of a process steps at a time (LibTorch's
/// generators and attention switches are process-wide), a second throws. Everything it throws is an
/// mlo::Error; where LibTorch was the first to throw, its exception is nested
/// (std::rethrow_if_nested). What losses, hooks and callbacks throw of their own passes as it is.
///
/// A parameter whose requires_grad is switched off between two steps, or in a hook or callback, is
/// frozen until it is switched on again: not trained, not decayed, its optimizer's state untouched,
/// and a constant of every hypergradient.
class Engine {
 public:
  explicit Engine(EngineOptions options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Registers a level above those registered before. Returns the problem as the engine keeps it.
  template <std::derived_from<Problem> P>
  std::shared_ptr<P> add(std::string name, P problem, LevelOptions options) {
    auto shared = std::make_shared<P>(std::move(problem));
    add_level(std::move(name), shared, std::move(options));
    return shared;
  }
  template <std::derived_from<Problem> P>
  std::shared_ptr<P> add(std::string name, std::shared_ptr<P> problem, LevelOptions options) {
    add_level(std::move(name), problem, std::move(options));
    return problem;
  }
  void add(std::shared_ptr<Callback> callback);

  /// Checks everything that can be checked before a step is taken: finds who reads whom by
  /// evaluating each level's first batch, and holds the methods against the graph, the losses and
  /// the optimizers. `run` and `step` call it.
  void build();

  /// Steps of the top level until `EngineOptions::steps`, the time is up, early stopping or a
  /// request to stop. Throws NonFiniteError where a level has diverged, also by its last step.
  RunSummary run();
  /// One step of each top level, with all the steps below it.
  void step();
  /// Lets the levels below take their steps, and returns the total derivative dL/dθ of the level's
  /// loss (one tensor a parameter) instead of taking its step. For checks and studies.
  Tensors hypergradient(const std::string& level);
  /// Calls every problem's `validate()`; "level.name" and number.
  std::map<std::string, double> validate();
  /// Ends `run` after the current step. Safe in a signal handler and from other threads.
  void request_stop() noexcept;

  const Graph& graph();
  std::vector<std::string> level_names() const;
  const Counters& counters(const std::string& level) const;
  /// Of the method's last visit at this level.
  SolveSummary summary(const std::string& level) const;
  const Tensors& parameters(const std::string& level) const;
  /// The last loss of a level, as the loss returned it (mean over micro-batches); NaN before the
  /// first step.
  double loss(const std::string& level) const;
  /// "level.metric" and value, of the metrics that came with the last losses, lowest level first.
  std::vector<std::pair<std::string, double>> metrics() const;
  int64_t steps_taken() const;
  const EngineOptions& options() const;

  /// All of the state: parameters, buffers, optimizers, counters, data positions, warm starts; and
  /// the settings of the run.
  State state() const;
  /// Throws CheckpointError, with the engine as before, when the state is of other levels, shapes
  /// or settings (`LoadOptions`).
  void load_state(const State& state, const LoadOptions& options = {});
  /// Throws NonFiniteError, with what the file held before untouched, for a parameter that is not
  /// finite (`state` does not).
  void save(const std::filesystem::path& file) const;
  void load(const std::filesystem::path& file, const LoadOptions& options = {});

  struct Body;  // the library's own business

 private:
  friend struct EngineAccess;
  void add_level(std::string name, std::shared_ptr<Problem> problem, LevelOptions options);
  std::unique_ptr<Body> body_;
};

}  // namespace mlo
#pragma GCC visibility pop
