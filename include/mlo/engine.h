#pragma once

#include "mlo/callback.h"
#include "mlo/data/source.h"
#include "mlo/graph.h"
#include "mlo/hypergradient/method.h"
#include "mlo/io/checkpoint.h"
#include "mlo/optim/optimizers.h"
#include "mlo/optim/schedule.h"
#include "mlo/problem.h"
#include "mlo/state.h"

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mlo {

/// What a level's loss computes in. bfloat16: under LibTorch's autocast, matrix products in bfloat16; parameters, optimizer and
/// all arithmetic of hypergradients stay float32. The loss must come out in float32.
enum class Precision { float32, bfloat16 };

/// How one level runs, and how the levels above differentiate through it.
struct LevelOptions {
  /// Needed. `sgd(…)`, `adam(…)`, `adamw(…)`, or `use(…)` for any other torch::optim::Optimizer.
  OptimizerFactory optimizer = {};
  /// Where batches come from; nothing: the loss is called with an empty batch.
  Data data = {};
  /// Own steps for each step of the levels that wait for this one.
  int64_t unroll = 1;
  /// How the levels above differentiate through this one. Null: `one_step()`.
  std::unique_ptr<Method> best_response = nullptr;
  /// Factor on the learning rates; null: constant.
  Schedule schedule = {};
  /// Own steps before the levels above begin: a level's first wait lasts at least this long.
  int64_t warmup_steps = 0;
  /// Micro-batches a step: the loss, and every derivative of it, is the mean over them.
  int64_t accumulate = 1;
  /// Largest norm of the gradient over all parameters; larger ones are scaled down. 0: no clipping.
  double clip_norm = 0.0;
  /// For parameters in float32 only. Methods that take differences of the loss are refused at bfloat16: its rounding drowns them.
  Precision precision = Precision::float32;
  /// Levels whose parameters the loss depends on. Not given: found by evaluating the first batch. Given: the authority,
  /// and checked.
  std::optional<std::vector<std::string>> reads = std::nullopt;
  /// Levels whose values the loss uses as constants: no derivative is taken with respect to them. Those below take their steps
  /// first all the same.
  std::vector<std::string> constant = {};
  /// Levels that stand below this one, where the order of registration does not say so.
  std::vector<std::string> above = {};
  /// One of several top levels. If no level says so, the last one is the top.
  bool top = false;

  void validate(const std::string& level) const;
};

struct EarlyStopping {
  std::string metric = {};  ///< "level.name" of a number that a `validate()` returns; empty: no early stopping
  int64_t patience = 5;     ///< validations without improvement before the run stops
  enum class Mode { min, max } mode = Mode::min;
  double min_delta = 0.0;   ///< smaller changes are no improvement
};

struct EngineOptions {
  int64_t steps = 1000;        ///< updates of the top level (of the first, if there are several), counted over resumed runs
  int64_t validate_every = 0;  ///< steps between validations; 0: none
  double seconds = std::numeric_limits<double>::infinity();  ///< stop after this long
  uint64_t seed = 0;           ///< of every random stream: (seed, level, step, micro-batch)
  EarlyStopping early_stopping = {};
  std::filesystem::path checkpoint = {};  ///< file saved when a run returns, for whatever reason (not when it throws), and …
  int64_t checkpoint_every = 0;           ///< … every so many steps; 0: only at the end
  SinkFactory checkpoint_sink = atomic_file;
  bool profile = false;        ///< seconds and peak memory of each level

  void validate() const;
};

/// What one level has done.
struct Counters {
  int64_t steps = 0;             ///< own steps
  int64_t forwards = 0;          ///< evaluations of the loss, probes included
  int64_t backwards = 0;         ///< reverse passes, probes and products included
  int64_t visits = 0;            ///< times a sweep came by
  int64_t hessian_products = 0;
  int64_t mixed_products = 0;
  double seconds = 0.0;          ///< under EngineOptions::profile: own steps, without the levels below
  int64_t peak_bytes = 0;        ///< under EngineOptions::profile: most bytes above the start of a step (CUDA: allocator; CPU: resident set)
};

/// How the engine that goes on with a run may differ from the one that saved it.
///
/// A state holds the settings of its run, each under a name. Loading compares them with the engine's own and throws one
/// CheckpointError that names every difference, unless it is allowed here. Then what the loading engine was given counts:
///
///     engine.seed               of the random streams from here on
///     engine.early_stopping     metric and mode; the best value and the count of validations begin anew
///     LEVEL.optimizer           its class; its moments begin anew
///     LEVEL.optimizer.groups    which parameters are in which group; the moments begin anew
///     LEVEL.optimizer.OPTION    lr, betas, eps, weight_decay, momentum, … as they were given (lr: before the schedule's factor)
///     LEVEL.schedule            whether there is one, and its factor at the last step taken
///     LEVEL.method              the name of its best response; what it remembers (warm starts) begins anew
///     LEVEL.data                `BatchSource::fingerprint`; where the saved position does not fit (another number of rows or
///                               batches), the data goes on from where the loading engine's stands
///     LEVEL.reads, LEVEL.constant, LEVEL.above, LEVEL.top, LEVEL.unroll, LEVEL.warmup_steps, LEVEL.accumulate,
///     LEVEL.clip_norm, LEVEL.precision
///
/// How long a run lasts and what is written on the way (the other EngineOptions) may always differ. A state of version 1 has no
/// settings: nothing is compared, and the saved seed and optimizers' options count.
struct LoadOptions {
  /// Names from above. One also stands for all that begin with it and a dot: "fit.optimizer" for the class and every option,
  /// "fit" for everything of that level. A name that is no setting of the two runs throws ConfigError.
  std::vector<std::string> allow_changed = {};
};

struct RunSummary {
  enum class Reason { steps, time, request, early_stopping };
  Reason reason = Reason::steps;
  int64_t steps = 0;       ///< of the top level, in all
  double seconds = 0.0;    ///< of this run
};
const char* to_string(RunSummary::Reason reason);

/// Runs several optimization problems whose optima feed each other. Register levels lowest first; `run` takes steps of the
/// top level, each after the levels below have taken their unroll counts. Not thread-safe, except request_stop; one
/// engine of a process steps at a time (LibTorch's generators and attention switches are process-wide), a second throws.
/// Everything it throws is an mlo::Error; where LibTorch was the first to throw, its exception is nested
/// (std::rethrow_if_nested). What losses, hooks and callbacks throw of their own passes as it is.
///
/// A parameter whose requires_grad is switched off between two steps, or in a hook or callback, is frozen until it is switched on
/// again: not trained, not decayed, its optimizer's state untouched, and a constant of every hypergradient.
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

  /// Checks everything that can be checked before a step is taken: finds who reads whom by evaluating each level's first
  /// batch, and holds the methods against the graph, the losses and the optimizers. `run` and `step` call it.
  void build();

  /// Steps of the top level until `EngineOptions::steps`, the time is up, early stopping or a request to stop.
  RunSummary run();
  /// One step of each top level, with all the steps below it.
  void step();
  /// Lets the levels below take their steps, and returns the total derivative dL/dθ of the level's loss (one tensor a
  /// parameter) instead of taking its step. For checks and studies.
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
  /// The last loss of a level, as the loss returned it (mean over micro-batches); NaN before the first step.
  double loss(const std::string& level) const;
  /// "level.metric" and value, of the metrics that came with the last losses, lowest level first.
  std::vector<std::pair<std::string, double>> metrics() const;
  int64_t steps_taken() const;
  const EngineOptions& options() const;

  /// All of the state: parameters, buffers, optimizers, counters, data positions, warm starts; and the settings of the run.
  State state() const;
  /// Throws CheckpointError, with the engine as before, when the state is of other levels, shapes or settings (`LoadOptions`).
  void load_state(const State& state, const LoadOptions& options = {});
  void save(const std::filesystem::path& file) const;
  void load(const std::filesystem::path& file, const LoadOptions& options = {});

  struct Body;  // the library's own business

 private:
  friend struct EngineAccess;
  void add_level(std::string name, std::shared_ptr<Problem> problem, LevelOptions options);
  std::unique_ptr<Body> body_;
};

}  // namespace mlo
