#include "precompiled.h"

#include "engine/body.h"
#include "hypergradient/sweep.h"
#include "level/evaluate.h"
#include "level/second_order.h"
#include "mlo/error.h"
#include "mlo/hypergradient/oracle.h"
#include "text.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

namespace mlo {
namespace {

bool contains(const std::vector<std::size_t>& list, std::size_t item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

bool is_constant(const Level& level, const Level& other) {
  const auto& names = level.options.constant;
  return std::find(names.begin(), names.end(), other.name) != names.end();
}

// Puts back what finding out who reads whom may touch: parameters, buffers, counters.
class UntouchedGuard {
 public:
  UntouchedGuard(Levels& levels, Level& level)
      : levels_(levels),
        counters_(level.counters),
        before_(level.counters),
        untrained_(levels.untrained.snapshot()) {}
  ~UntouchedGuard() {
    levels_.untrained.set(untrained_);
    counters_ = before_;
  }
  UntouchedGuard(const UntouchedGuard&) = delete;
  UntouchedGuard& operator=(const UntouchedGuard&) = delete;

  void buffers_again() const { levels_.untrained.set(untrained_); }

 private:
  Levels& levels_;
  Counters& counters_;
  const Counters before_;
  const Tensors untrained_;
};

// The loss on all of a step's micro-batches, replayed.
double value(Level& level, std::vector<Draw>& draws, const UntouchedGuard& untouched) {
  untouched.buffers_again();
  double sum = 0.0;
  for (Draw& draw : draws) sum += replay(level, draw).loss.item<double>();
  return sum;
}

}  // namespace

void Engine::Body::order_levels() {
  auto& all = levels.all;
  for (const auto& level : all)
    for (const auto& below : level->options.below) {
      if (levels.find(below).name == level->name)
        throw ConfigError("level " + quoted(level->name) +
                          ": LevelOptions::below names the level itself");
    }
  // The first level in the order of registration that has everything it must be above of behind it,
  // again and again.
  std::vector<std::unique_ptr<Level>> ordered;
  const auto placed = [&ordered](const std::string& name) {
    return std::any_of(ordered.begin(), ordered.end(),
                       [&](const auto& level) { return level->name == name; });
  };
  while (!all.empty()) {
    const auto next = std::find_if(all.begin(), all.end(), [&](const auto& level) {
      return std::all_of(level->options.below.begin(), level->options.below.end(), placed);
    });
    if (next == all.end()) {
      std::string circle;
      for (const auto& level : all) {
        if (!circle.empty()) circle += "; ";
        circle += quoted(level->name) + " above";
        for (const auto& below : level->options.below) circle.append(" ").append(quoted(below));
      }
      for (auto& level : all) ordered.push_back(std::move(level));
      all = std::move(ordered);
      throw ConfigError("the declared orders contradict each other: " + circle +
                        "; take out one of them (LevelOptions::below)");
    }
    ordered.push_back(std::move(*next));
    all.erase(next);
  }
  all = std::move(ordered);
  for (std::size_t i = 0; i < all.size(); ++i) all[i]->index = i;
}

// The metric's name is known only after the first validation; its level must be one of ours now.
void Engine::Body::check_early_stopping() const {
  const std::string& metric = options.early_stopping.metric;
  if (metric.empty()) return;
  std::string names;
  for (const auto& level : levels.all) {
    if (metric.rfind(level->name + ".", 0) == 0) return;
    names += (names.empty() ? "" : ", ") + quoted(level->name);
  }
  throw ConfigError("early_stopping.metric is " + quoted(metric) +
                    "; it must be the \"level.name\" of a number that a level's "
                    "validate() returns, and the levels are " +
                    names);
}

void Engine::Body::build() {
  if (built) return;
  if (levels.size() == 0)
    throw ConfigError("the engine has no level; call Engine::add before building or running it");
  const ExclusiveGuard exclusive(*this);
  check_early_stopping();
  order_levels();
  levels.collect();
  const ThawGuard thawed(levels);

  graph.nodes.assign(levels.size(), {});
  plans.clear();
  plans.resize(levels.size());
  tops.clear();
  for (const auto& level : levels.all) {
    Graph::Node& node = graph.nodes[level->index];
    node.name = level->name;
    node.unroll = level->options.unroll;
    node.warmup_steps = level->options.warmup_steps;
    if (level->options.top) tops.push_back(level->index);
  }
  if (tops.empty()) tops.push_back(levels.size() - 1);
  for (const std::size_t top : tops) graph.nodes[top].top = true;

  for (const auto& level : levels.all) {
    level->taken.assign(levels.size(), 0);
    if (level->pending.empty()) {  // else a build that failed has drawn them
      if (BatchSource* source = level->options.data.source()) {
        source->seed(stream_key(options.seed, level->stream, /*step=*/-1, 0));
        source->save(level->unread.emplace(), "");
      }
      level->pending = draw(*level);
    }
    discover_reads(*level, /*perturb=*/true);
  }
  plan();
  built = true;
}

void Engine::Body::discover_reads(Level& level, bool perturb) {
  const UntouchedGuard untouched(levels, level);
  std::vector<Draw>& draws = perturb ? level.pending : level.last_draws;
  std::vector<char> reached(levels.size(), 0);
  std::vector<std::string> unseen(levels.size());

  // What automatic differentiation reaches.
  levels.set_all_gradients(true);
  Tensors everything;
  std::vector<std::vector<char>> reached_parameters;
  for (const auto& other : levels.all) reached_parameters.emplace_back(other->parameters.size(), 0);
  for (const auto& other : levels.all)
    everything.insert(everything.end(), other->parameters.begin(), other->parameters.end());
  const int64_t version = levels.version();
  double first = 0.0;
  for (Draw& draw : draws) {
    const Evaluation evaluation = evaluate(level, draw);
    first += evaluation.loss.item<double>();
    if (levels.version() != version)
      throw LossError(
          where(level) +
          ": the loss wrote parameters; a loss only computes, the optimizer's step writes");
    if (!evaluation.loss.requires_grad()) continue;
    const Tensors gradient =
        differentiate(level, evaluation.loss, everything, /*create_graph=*/false);
    std::size_t i = 0;
    for (const auto& other : levels.all)
      for (std::size_t p = 0; p < other->parameters.size(); ++p, ++i)
        if (gradient[i].defined()) reached[other->index] = reached_parameters[other->index][p] = 1;
  }

  if (perturb) {
    // The same again must be the same: a probe replays the loss. On a GPU, and where several
    // threads write to one place, sums may come in another order.
    const double again = value(level, draws, untouched);
    const bool in_double = level.parameters.front().scalar_type() == at::kDouble;
    const bool in_order = level.parameters.front().is_cpu() && at::get_num_threads() == 1;
    const double room = in_order ? 0.0 : (in_double ? 1e-12 : 1e-5) * std::abs(first);
    if (std::abs(again - first) > room)
      throw LossError(where(level) + ": the loss changes on replay: " + number(first) + ", then " +
                      number(again) +
                      " with the same parameters, buffers, batch and random state. Draw random "
                      "numbers only from LibTorch's "
                      "default generators, keep no state between calls, wrap discrete choices in "
                      "mlo::replayed");
    // A loss that takes gradients itself needs them on in every evaluation, and so does one that
    // computes another value without them. Another rounding is no other value: which kernel runs
    // may depend on what requires a gradient.
    levels.set_all_gradients(false);
    try {
      const double rounding = (in_double ? 1e-12 : 1e-5) * std::abs(first);
      level.takes_gradients =
          std::abs(value(level, draws, untouched) - first) > std::max(room, rounding);
    } catch (const Error&) {  // LibTorch's; what the user throws is not about gradients
      level.takes_gradients = true;
    }
    levels.set_all_gradients(true);
    // A value that depends on a level without a graph to it would silently lose a term.
    for (const auto& other : levels.all) {
      if (other->index == level.index || is_constant(level, *other)) continue;
      std::vector<std::size_t> rest;
      for (std::size_t p = 0; p < other->parameters.size(); ++p)
        if (!reached_parameters[other->index][p]) rest.push_back(p);
      const auto changes = [&](const std::vector<std::size_t>& perturbed) {
        const RewindGuard back(other->parameters, other->values.freeze(), other->scratch);
        for (const std::size_t p : perturbed) {
          const at::NoGradGuard no_grad;
          const auto& parameter = other->parameters[p];
          const double size = std::max(
              0.1, norm({parameter}) /
                       std::sqrt(std::max<double>(1.0, static_cast<double>(parameter.numel()))));
          seed_generators(stream_key(options.seed, other->stream, -3, static_cast<int64_t>(p)));
          parameter.add_(at::randn_like(parameter), 0.01 * size);
        }
        try {
          return std::abs(value(level, draws, untouched) - first) > room;
        } catch (const Error&) {
          return true;  // not finite any more
        }
      };
      // All at once, as a model may have many that are not used; one by one only to say which.
      if (rest.empty() || !changes(rest)) continue;
      std::string& names = unseen[other->index];
      for (const std::size_t p : rest)
        if (changes({p})) names += (names.empty() ? "'" : ", '") + other->parameter_names[p] + "'";
      if (names.empty()) names = "several together";
    }
  }
  check_declared(level, reached, unseen);
}

void Engine::Body::check_declared(Level& level, const std::vector<char>& reached,
                                  const std::vector<std::string>& unseen) {
  Graph::Node& node = graph.nodes[level.index];
  const bool first_time = !built;
  std::vector<char> constant(levels.size(), 0), declared(levels.size(), 0);
  for (const auto& name : level.options.constant) constant[levels.find(name).index] = 1;
  if (level.options.reads)
    for (const auto& name : *level.options.reads) declared[levels.find(name).index] = 1;
  if (constant[level.index] || declared[level.index])
    throw ConfigError(
        "level " + quoted(level.name) +
        ": LevelOptions::reads and ::constant name other levels, not the level itself");

  for (std::size_t j = 0; j < levels.size(); ++j) {
    if (j == level.index) continue;
    const std::string other = quoted(levels[j].name);
    if (constant[j] && declared[j])
      throw ConfigError("level " + quoted(level.name) + " declares " + other +
                        " both read and constant; choose one");
    if (constant[j]) {
      if (first_time) node.constants.push_back(j);
      continue;
    }
    if (reached[j] && level.options.reads && !declared[j])
      throw ConfigError(where(level) + ": the loss depends on level " + other +
                        ", which LevelOptions::reads does not name; add it "
                        "there, or to LevelOptions::constant");
    if (!unseen[j].empty())
      throw LossError(where(level) + ": the loss depends on level " + other +
                      " without a graph to its parameters (" + unseen[j] +
                      "), which would silently drop a term of the hypergradient; remove detach() "
                      "and no-grad blocks on the way, "
                      "or say that a constant is meant: mlo::stop_gradient(…) for a value" +
                      (reached[j] ? ""
                                  : ", LevelOptions::constant = {\"" + levels[j].name +
                                        "\"} for the whole level"));
    if ((reached[j] || declared[j]) && !contains(node.reads, j)) node.reads.push_back(j);
  }
  std::sort(node.reads.begin(), node.reads.end());
  plan_of(level).trains_itself |= reached[level.index] != 0;
}

void Engine::Body::plan() {
  for (LevelPlan& plan : plans) plan.sweepers.clear();
  for (const auto& level : levels.all) {
    const Graph::Node& node = graph.nodes[level->index];
    LevelPlan& plan = plan_of(*level);
    plan.below = graph.below(level->index);
    level->value_reads = node.reads;
    level->value_reads.insert(level->value_reads.end(), node.constants.begin(),
                              node.constants.end());
    const auto order = graph.responding(level->index);
    if (order.empty() && !plan.trains_itself && !level->makes_gradient)
      throw LossError(where(*level) +
                      ": the loss is detached: it depends on no parameter this level trains, "
                      "neither directly nor "
                      "through a level below that reads it; remove detach() and no-grad blocks on "
                      "the way, or, where "
                      "on_gradient makes the gradient, name the levels whose values the loss uses "
                      "(LevelOptions::constant)");
    plan.differentiated.assign(levels.size(), 0);
    plan.differentiated[level->index] = 1;
    for (const std::size_t k : order) {
      plans[k].sweepers.push_back(level->index);
      if (contains(node.reads, k)) plan.differentiated[k] = 1;
    }
    plan.sweep = order.empty() ? nullptr : std::make_unique<Sweep>(levels, graph, level->index);
  }
  cycle = graph.cycle(tops);

  for (const auto& level : levels.all) {
    const bool reaches_top = std::any_of(tops.begin(), tops.end(), [&](std::size_t top) {
      return top == level->index || contains(plans[top].below, level->index);
    });
    if (!reaches_top) {
      std::string names;
      for (const std::size_t top : tops)
        names += (names.empty() ? "" : ", ") + quoted(levels[top].name);
      throw ConfigError(
          "from level " + quoted(level->name) +
          " no top level can be reached, so it would never step: no graph leads to its "
          "parameters from the loss of " +
          names +
          " or of a level that it uses, and these losses did not change when the "
          "parameters were perturbed by a hundredth. Use them in a loss. If one uses them but is "
          "piecewise constant (an "
          "accuracy, an argmax), say so there: LevelOptions::constant = {\"" +
          level->name +
          "\"}. Else remove the level, or mark it "
          "LevelOptions::top\n" +
          graph.to_string());
    }
    LevelPlan& plan = plan_of(*level);
    if (plan.sweepers.empty()) {
      level->needs = {};
      continue;
    }
    level->needs = level->options.best_response->needs();
    plan.kept = plan.differentiated;
    for (const std::size_t upper : plan.sweepers)
      for (const std::size_t j : graph.nodes[level->index].reads)
        if (j == upper || contains(plans[upper].sweep->order(), j)) plan.kept[j] = 1;
    for (const std::size_t upper : plan.sweepers) check_method(levels[upper], *level);
  }
}

void Engine::Body::check_method(Level& upper, Level& level) {
  const Needs& needs = level.needs;
  const std::string who =
      "level " + quoted(level.name) + ": the method '" + level.options.best_response->name() + "' ";
  if ((needs.update_derivative || needs.optimizer_trajectory) && !level.rule)
    throw UnsupportedError(who + "differentiates the optimizer's update, and " + level.why_no_rule +
                           ". Choose a known optimizer, another scale "
                           "(IdentityOptions::Scale::learning_rate), or an implicit "
                           "method such as mlo::cg()");
  if (needs.differences && level.options.precision == Precision::bfloat16)
    throw UnsupportedError(who +
                           "takes differences of a loss that is computed in bfloat16, whose "
                           "rounding is larger than they are. Set "
                           "LevelOptions::precision to float32 for this level, or use "
                           "mlo::one_step() or mlo::reverse_over_forward_oracle()");
  if (needs.analytic && !level.analytic)
    throw UnsupportedError(who +
                           "needs a problem that derives from mlo::AnalyticDerivatives; derive "
                           "from it, or use mlo::one_step()");
  if (needs.trajectory) check_trajectory(upper, level);
  if (needs.differences && !built) check_constants(upper, level);
  if (needs.second_order || needs.forward_mode) {
    const UntouchedGuard untouched(levels, level);
    const at::AutoGradMode with_gradients(
        true);  // around the gradients that are taken of the losses
    std::vector<Draw>& draws = built ? level.last_draws : level.pending;
    if (needs.second_order) check_attention(level, who, draws);
    if (needs.forward_mode) {
      // Along the parameters themselves: any direction does to see what the loss is made of.
      const SecondOrderGuard attention(true);
      const Tensors& targets = plan_of(upper).sweep->targets(level.index);
      levels.set_gradients_for(level, targets);
      for (Draw& draw : draws) product_by_duals(level, draw, clone(level.parameters), targets);
      levels.set_all_gradients(true);
    }
  }
}

// Fused attention cannot be differentiated twice. It stays where the gradient of the level's own
// parameters does not come through it (a head on an encoder that another level trains), else the
// engine chooses another kernel, and refuses what chooses for itself.
void Engine::Body::check_attention(Level& level, const std::string& who, std::vector<Draw>& draws) {
  levels.set_all_gradients(true);
  std::string node;
  for (const bool guarded : {false, true}) {
    level.guarded_attention = guarded;
    const SecondOrderGuard attention(guarded);
    node.clear();
    for (Draw& draw : draws) {
      const Evaluation evaluation = replay(level, draw);
      if (!evaluation.loss.requires_grad() || !node.empty()) continue;
      if (const std::string wrong =
              wrong_when_differentiated_twice(evaluation.loss, level.parameters);
          !wrong.empty())
        throw UnsupportedError(
            who + "differentiates the loss twice, and LibTorch's second derivative of " + wrong +
            ", which this level's parameters pass through, is wrong. Write the operation out (for "
            "a weight norm "
            "g * v / v.norm(…)), or use a first-order method for this level: mlo::darts()");
      node = fused_attention_between(
          evaluation.loss,
          differentiate(level, evaluation.loss, level.parameters, /*create_graph=*/true));
    }
    if (node.empty()) return;
  }
  throw UnsupportedError(
      who + "differentiates the loss twice, and the loss uses a fused attention kernel (" + node +
      ") that LibTorch cannot differentiate twice. Call at::scaled_dot_product_attention, for "
      "which the "
      "engine chooses a kernel that can, or use a first-order method for this level: mlo::darts()");
}

// Differences shift the level's parameters and see all that follows from them, also by way of a
// detach(), which automatic differentiation takes as a constant. Where the loss's own slope shows
// that the two disagree, and its mixed products do, too, the user should know. Second derivatives
// are taken only then.
void Engine::Body::check_constants(Level& upper, Level& level) {
  const UntouchedGuard untouched(levels, level);
  StepRecord record;
  record.values.resize(levels.size());
  record.values[level.index] = level.values.freeze();
  for (const std::size_t j : level.value_reads) record.values[j] = levels[j].values.freeze();
  record.modes = levels.modes();
  Draw draw = level.pending.front();
  draw.untrained = levels.untrained.snapshot();

  levels.set_gradients_for(level, level.parameters);
  Tensors slope;
  {
    const at::AutoGradMode with_gradients(true);
    const Evaluation evaluation = evaluate(level, draw);
    if (!evaluation.loss.requires_grad()) return;
    slope = differentiate(level, evaluation.loss, level.parameters, /*create_graph=*/false);
  }
  record.draws = {draw};

  // Along the gradient, where the signal is largest, and across it, where a detached part may be.
  const at::NoGradGuard no_grad;
  const double rms = norm(slope) / std::sqrt(static_cast<double>(numel(level.parameters)));
  Tensors v(slope.size());
  seed_generators(stream_key(options.seed, level.stream, -6, 0));
  for (std::size_t i = 0; i < v.size(); ++i) {
    // Of each tensor's own size: beside a steep one a random move as large would be all that
    // differences see of a flat one.
    const double own = slope[i].defined()
                           ? norm({slope[i]}) / std::sqrt(static_cast<double>(slope[i].numel()))
                           : 0.0;
    v[i] = at::randn_like(level.parameters[i]).mul_(own > 0.0 ? own : rms > 0.0 ? rms : 1.0);
    if (slope[i].defined()) v[i].add_(slope[i]);
  }
  const bool in_double = level.parameters.front().scalar_type() == at::kDouble;
  const double size = norm(level.parameters);
  const double radius =
      (in_double ? 1e-5 : 1e-3) *
      (size > 0.0 ? size : std::sqrt(static_cast<double>(numel(level.parameters)))) / norm(v);
  double values[2];
  try {
    const RewindGuard back(level.parameters, record.values[level.index], level.scratch);
    for (const int side : {0, 1}) {
      back.again();
      for (std::size_t i = 0; i < v.size(); ++i)
        level.parameters[i].add_(v[i], side == 0 ? radius : -radius);
      untouched.buffers_again();
      values[side] = value_of(replay(level, draw).loss);
    }
  } catch (const NonFiniteError&) {
    return;
  }
  const double by_differences = (values[0] - values[1]) / (2.0 * radius),
               by_autograd = dot(slope, v);
  const double rounding = (in_double ? 1e-14 : 1e-6) * std::abs(draw.loss) / radius;
  if (std::abs(by_differences - by_autograd) <= 0.1 * std::abs(by_autograd) + rounding) return;

  const Tensors& targets = plan_of(upper).sweep->targets(level.index);
  const auto product = [&](const Oracle& oracle) {
    const auto probe = Sweep::probe(levels, level, record, EvaluationPoint::before_step,
                                    oracle.needs().second_order);
    return widened(
        oracle.linearize(*probe, targets)->product(v, Linearization::Wrt::targets, /*last=*/true),
        targets);
  };
  Tensors exact, differences, nearer;
  try {
    exact = product(*exact_oracle({.keep_graph = false}));
    differences = product(*finite_difference_oracle());
    nearer = product(*finite_difference_oracle({.constant = in_double ? 1e-6 : 3e-4}));
  } catch (const std::exception&) {
    return;  // no second derivative to be had: nothing to compare with
  }
  const double larger = std::max(norm(exact), norm(differences));
  add_scaled(differences, exact, -1.0);
  const double gap = norm(differences);
  if (gap <= 0.3 * larger) return;
  // What is detached is so at every radius; kinks are not, and rounding is not.
  add_scaled(nearer, exact, -1.0);
  add_scaled(nearer, differences, -1.0);
  const bool kinks = norm(nearer) > 0.3 * gap;
  warn(
      (kinks ? "kinks in " : "detached in ") + level.name,
      "level '" + level.name + "': products by differences ('" +
          level.options.best_response->name() + "') and by automatic differentiation disagree by " +
          number(std::round(100.0 * gap / larger)) +
          (kinks ? " %, and by how much changes with the radius: kinks (ReLU, max pooling, clamps) "
                   "or rounding within it. Take mlo::one_step() or "
                   "mlo::reverse_over_forward_oracle() for this level, or keep it in float64"
                 : " %. Does the loss detach something that depends on this level's parameters? "
                   "Differences see through detach() and no-grad blocks; mlo::stop_gradient(…) is "
                   "a constant for both. If nothing is detached, take mlo::one_step()"));
}

// An unrolled level has one adjoint for each level it reads and one for itself. That is right only
// if what it reads stands still between its steps, and if those who read it have read its last
// state: in the cycle of a step and in that of Engine::hypergradient, the first time (with warm-up)
// and later.
void Engine::Body::check_trajectory(Level& upper, Level& level) {
  const std::string who =
      "level " + quoted(level.name) + ": the method '" + level.options.best_response->name() + "' ";
  std::vector<std::size_t> moving, readers;
  for (const std::size_t k : plan_of(upper).sweep->order()) {
    if (contains(graph.nodes[level.index].reads, k)) moving.push_back(k);
    if (contains(graph.nodes[k].reads, level.index)) readers.push_back(k);
  }
  const std::vector<int64_t> none(levels.size(), 0);
  for (const auto& turns : {graph.cycle(tops, none), graph.cycle(tops),
                            graph.cycle({upper.index}, none), graph.cycle({upper.index})}) {
    std::vector<std::size_t> steps(levels.size(), 0),
        first;  // taken so far; the same at the level's first since upper's
    std::vector<std::size_t> read(levels.size(), 0);  // by level: steps of `level` at its last one
    for (const Turn& turn : turns) {
      if (turn.kind == Turn::Kind::start) continue;
      if (turn.level == level.index) {
        if (first.empty()) first = steps;
        for (const std::size_t j : moving)
          if (steps[j] != first[j])
            throw UnsupportedError(who + "goes back through several steps, between which level " +
                                   quoted(levels[j].name) +
                                   ", which it reads and which responds to " + quoted(upper.name) +
                                   ", moves too; one adjoint for all of them would be wrong. Set " +
                                   (level.options.unroll > 1 ? "unroll = 1" : "warmup_steps = 0") +
                                   " for level " + quoted(level.name) +
                                   ", or give it an implicit method such as mlo::cg()");
      }
      if (turn.level == upper.index) {
        for (const std::size_t reader : readers)
          if (read[reader] != steps[level.index])
            throw UnsupportedError(
                who + "differentiates the state after its last step, and level " +
                quoted(levels[reader].name) + " has read an earlier one when " +
                quoted(upper.name) +
                " steps. Give the levels that read it the same unroll count, or give level " +
                quoted(level.name) + " an implicit method such as mlo::cg()");
        first.clear();
      }
      read[turn.level] = steps[level.index];
      ++steps[turn.level];
    }
  }
}

void Engine::Body::look_at_reads_again() {
  const Graph before = graph;
  const ExclusiveGuard exclusive(*this);
  const ThawGuard thawed(levels);
  for (const auto& level : levels.all) {
    const Graph::Node& node = graph.nodes[level->index];
    const bool knows_all = node.reads.size() + node.constants.size() + 1 == levels.size();
    if (level->last_draws.empty() || knows_all) continue;
    try {
      discover_reads(*level, /*perturb=*/false);
    } catch (const NonFiniteError&) {
      // Of the last batch at the new parameters: the next step is the one to say so, if it matters.
    }
  }
  bool same = true;
  for (std::size_t i = 0; i < levels.size(); ++i)
    same &= before.nodes[i].reads == graph.nodes[i].reads;
  if (!same) plan();
  for (const auto& level : levels.all) level->last_draws.clear();
}

}  // namespace mlo
