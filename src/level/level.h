#pragma once

#include "mlo/counters.h"
#include "mlo/level_options.h"
#include "mlo/problem.h"
#include "mlo/step_record.h"
#include "optim/update_rule.h"
#include "replay/values.h"

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace mlo {

/// What a level remembers of its last steps.
struct Past {
  std::deque<StepRecord> records;  // oldest first
  // by upper level: own steps since that level's last step, which its sweep goes through
  std::vector<std::size_t> taken;
  std::vector<Draw> pending;     // drawn by build() for the first step
  std::optional<State> unread;   // the data's state before `pending` was drawn
  std::vector<Draw> last_draws;  // of the last step, to look at reads again
  at::Tensor last_loss;
  bool detached = false;  // the last loss was on no graph
  std::vector<std::pair<std::string, at::Tensor>> last_metrics;

  // What a replay has been held against (see Probe); what is not in a checkpoint is found anew.
  double largest_loss = 0.0;  // by magnitude
  // of ½(L₊ + L₋) from the step's loss, where the replay was found to be right
  double widest_gap = -1.0;
  // Operations in its loss that reverse over forward would not differentiate right, and does not
  // meet (see product_by_duals): how many of each name were looked at.
  std::map<std::string, int64_t> harmless;
};

/// One registered level at run time: what it trains, with what, and what it remembers of its last
/// steps.
class Level {
 public:
  Level(std::string name, std::shared_ptr<Problem> problem, LevelOptions options);
  ~Level();

  const std::string name;
  const uint64_t stream;  // this level's part of the random key
  const std::shared_ptr<Problem> problem;
  AnalyticDerivatives* const analytic;  // null if the problem has none
  LevelOptions options;
  std::size_t index = 0;

  std::vector<std::string> parameter_names;
  Tensors parameters;  // trainable ones
  Values values;
  Tensors scratch;  // for RewindGuard
  bool gradients_on = true;
  // by parameter: switched off by the user, so that it is a constant for now
  std::vector<char> frozen;
  bool makes_gradient = false;  // its loss uses declared values and may be on no graph: on_gradient
                                // makes the gradient
  bool takes_gradients = false;  // its loss is another one, or none, where gradients are off

  std::shared_ptr<torch::optim::Optimizer> optimizer;
  std::vector<double> base_learning_rates;
  // as given: "" for the class, ".lr" and the like
  std::map<std::string, std::string> optimizer_settings;
  std::unique_ptr<UpdateRule> rule;  // null if the optimizer is not known
  std::string why_no_rule;

  // What the levels above ask of it.
  Needs needs;                    // of its method, if anybody sweeps over it
  bool guarded_attention = true;  // ... whose second derivatives pass through attention
  // other levels whose values its loss depends on, with a graph or as constants
  std::vector<std::size_t> value_reads;

  Past past;
  Counters counters;
  int64_t batches = 0;  // handed out by its data
  int64_t epoch = 0;

  /// Throws ConfigError if a parameter is not what it was when the level was added.
  void check_parameters() const;
  /// requires_grad of its parameters, but for those that are frozen.
  void set_gradients(bool on);
  /// Takes for frozen what the user has switched off. Only while gradients are on: then nobody else
  /// has.
  void look_at_frozen();
  /// Of each parameter, as the optimizer's groups say now.
  std::vector<double> learning_rates() const;

 private:
  struct Meta {
    std::vector<int64_t> sizes;
    at::ScalarType dtype;
    at::Device device;
  };
  std::vector<Meta> metas_;
};

/// All levels of an engine, lowest first, and what belongs to none of them alone.
class Levels {
 public:
  std::vector<std::unique_ptr<Level>> all;
  bool probed = false;  // values of a recorded step are in place just now
  Untrained untrained;  // buffers and frozen parameters of every level's modules
  // and all their submodules, each before those below it
  std::vector<std::shared_ptr<torch::nn::Module>> modules;

  Level& operator[](std::size_t i) const { return *all[i]; }
  std::size_t size() const { return all.size(); }
  /// Throws ConfigError naming the levels there are.
  Level& find(const std::string& name) const;

  /// Collects modules, buffers and frozen parameters; after the last level is there.
  void collect();
  /// For an evaluation of the level's loss: requires_grad on for the levels that train a tensor of
  /// `wrt` (and of `also`), off for the others; on for all if the loss takes gradients itself.
  void set_gradients_for(const Level& level, const Tensors& wrt, const Tensors& also = {});
  /// The same by level.
  void set_gradients(const Level& level, const std::vector<char>& on);
  /// On: requires_grad as the user has set it.
  void set_all_gradients(bool on);
  void look_at_frozen();
  /// Sum of autograd's version counters: moves whenever any parameter is written.
  int64_t version() const;
  std::vector<char> modes() const;
  /// Of each module its own flag.
  void set_modes(const std::vector<char>& modes);

 private:
  std::unordered_map<const void*, Level*> owner_;
};

/// For its lifetime nothing is frozen: who reads whom does not hang on what the user trains just
/// now.
class ThawGuard {
 public:
  explicit ThawGuard(Levels& levels);
  ~ThawGuard();
  ThawGuard(const ThawGuard&) = delete;
  ThawGuard& operator=(const ThawGuard&) = delete;

 private:
  Levels& levels_;
  std::vector<std::vector<char>> frozen_;
};

/// "level 'head' at step 12".
std::string where(const Level& level);

}  // namespace mlo
