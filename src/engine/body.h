#pragma once

#include "engine/plan.h"
#include "level/level.h"
#include "libtorch_error.h"
#include "mlo/engine.h"
#include "mlo/error.h"
#include "replay/random.h"
#include "text.h"

#include <atomic>
#include <chrono>
#include <exception>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace mlo {

/// The engine proper. Its functions are in engine.cpp (running), build.cpp with reads.cpp,
/// plan.cpp, refusals.cpp and constants.cpp (all that is done before the first step), step.cpp (one
/// step), state.cpp (saving) and settings.cpp (what a resumed run is compared by).
struct Engine::Body {
  explicit Body(Engine& engine, EngineOptions the_options)
      : self(engine), options(std::move(the_options)) {}

  Engine& self;
  EngineOptions options;
  Levels levels;
  Graph graph;
  std::vector<std::size_t> tops;
  std::vector<LevelPlan> plans;  // by level
  std::vector<Turn> cycle;       // of a step after all warm-ups
  bool built = false;
  std::vector<std::shared_ptr<Callback>> callbacks;
  std::set<std::string> warned;
  std::vector<std::string> untold;  // warnings made before there was a callback
  std::exception_ptr broken;  // why its state could not be put back; nothing may go on from there

  int64_t steps = 0;  // of the first top level
  std::atomic<bool> stop_requested = false;
  static_assert(std::atomic<bool>::is_always_lock_free,
                "request_stop is called by signal handlers");

  bool has_best = false;  // early stopping
  double best = 0.0;
  int64_t validations_without_improvement = 0;

  // build.cpp
  void build();
  void order_levels();

  // reads.cpp
  /// At build, by the batches of the first step: whom automatic differentiation reaches, and that
  /// the loss uses no other.
  void discover_reads(Level& level);
  /// Later, by the last step's batches and automatic differentiation alone.
  void look_at_reads_again();
  void note_reads(const Level& level, const std::vector<char>& reached,
                  const std::vector<std::string>& unseen);

  // plan.cpp
  void plan();

  // refusals.cpp
  void check_early_stopping() const;
  void check_declared(const Level& level, const std::vector<char>& reached,
                      const std::vector<std::string>& unseen) const;
  void check_attached(const Level& level) const;
  void check_reaches_top(const Level& level) const;
  void check_method(Level& upper, Level& level);
  void check_second_order(Level& level, const std::vector<Draw>& draws);
  void check_trajectory(const Level& upper, const Level& level) const;

  // constants.cpp
  /// Warns where differences and automatic differentiation disagree on what is a constant.
  void check_constants(Level& upper, Level& level);

  // step.cpp
  void check_parameters() const;
  LevelPlan& plan_of(const Level& level) { return plans[level.index]; }
  void begin_cycle();
  /// The steps of other levels that a step of this one waits for.
  void advance_below(const Level& upper);
  void take(const Turn& turn);
  /// Lets go of the records that no sweep can ask for any more.
  void forget_steps(Level& level);
  bool warming_up() const;
  std::vector<int64_t> steps_by_level() const;
  void start_inner_loop(Level& level);
  /// Reads are looked at again after steps 2, 4, 8, …
  static bool looks_after(int64_t step);
  StepRecord* begin_record(Level& level, bool last);
  Tensors total_gradient(Level& level, StepRecord* record);
  at::Tensor direct_gradient(Level& level, Draw& draw, const Tensors& wrt, StepRecord* keep,
                             Tensors& gradient);
  void apply(Level& level, Tensors gradient, StepRecord* record);
  /// Calls a hook of the problem's: requires_grad is as the user has set it, and what he changes
  /// counts from then on.
  template <class Call>
  void hook(Level& level, const char* name, const Call& call) {
    levels.set_all_gradients(true);
    naming<Error>([&] { return message("{}: {}", where(level), name); }, call);
    levels.look_at_frozen();
  }
  std::vector<Draw> draw(Level& level);
  Batch next_batch(Level& level);
  void step();

  // engine.cpp
  void check_usable() const;
  RunSummary run();
  template <class Call>
  void tell(const char* what, const Call& call) const {
    for (const auto& callback : callbacks)
      naming<Error>([what] { return message("Engine::run: a callback's {}", what); },
                    [&] { call(*callback); });
  }
  std::map<std::string, double> validate();
  bool judge(const std::map<std::string, double>& metrics);
  bool out_of_patience() const;
  /// Throws NonFiniteError naming level, step and parameter.
  void check_finite() const;
  /// Says it if nothing of this name has been said before.
  void warn(const std::string& what, const std::string& text);

  // settings.cpp
  /// What shapes the run besides its state, by name; see LoadOptions. `saved`: with the schedules
  /// at the steps of that state.
  std::map<std::string, std::string> settings(const State* saved = nullptr) const;
  /// Names of the settings in which the saved run differs, all of them allowed; throws
  /// CheckpointError if one is not.
  std::set<std::string> changes(const State& saved, const LoadOptions& options) const;

  // state.cpp
  State state() const;
  void load_state(const State& state, const LoadOptions& options);
  void check_state(const State& state) const;
  /// `changed`: settings of which this engine's own value counts.
  void apply_state(const State& state, const std::set<std::string>& changed = {});
  void apply_data(Level& level, const State& state, bool changed);
  void apply_reads(const State& state, const std::set<std::string>& changed);
};

/// Lets the library's own parts (check_hypergradient) past the engine's public face.
struct EngineAccess {
  static Engine::Body& body(Engine& engine) { return *engine.body_; }
};

/// While one engine evaluates losses no other may: LibTorch's generators and attention switches
/// belong to the process. Entering again from the same engine is fine. Puts the generators and
/// every requires_grad back at the end, as the user has set it.
class ExclusiveGuard {
 public:
  explicit ExclusiveGuard(Engine::Body& body);
  ~ExclusiveGuard();
  ExclusiveGuard(const ExclusiveGuard&) = delete;
  ExclusiveGuard& operator=(const ExclusiveGuard&) = delete;

 private:
  static std::atomic<const void*> active;
  Levels& levels_;
  bool outermost_;
  std::optional<GeneratorGuard> generators_;
};

}  // namespace mlo
