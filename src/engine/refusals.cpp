#include "precompiled.h"

#include "engine/body.h"
#include "engine/untouched.h"
#include "level/evaluate.h"
#include "level/second_order.h"
#include "mlo/error.h"
#include "text.h"

#include <algorithm>

namespace mlo {
namespace {

std::string method_of(const Level& level) {
  return message("level {}: the method {}", quoted(level.name),
                 quoted(level.options.best_response->name()));
}

}  // namespace

// The metric's name is known only after the first validation; its level must be one of ours now.
void Engine::Body::check_early_stopping() const {
  const std::string& metric = options.early_stopping.metric;
  if (metric.empty()) return;
  for (const auto& level : levels.all)
    if (metric.starts_with(level->name + ".")) return;
  refuse<ConfigError>(
      "EarlyStopping::metric = {}; it must be the \"level.name\" of a number that a level's "
      "validate() returns, and the levels are {}",
      quoted(metric), listed(self.level_names()));
}

// What the level's options say of other levels, beside what its loss shows.
void Engine::Body::check_declared(const Level& level, const std::vector<char>& reached,
                                  const std::vector<std::string>& unseen) const {
  std::vector<char> constant(levels.size(), 0), declared(levels.size(), 0);
  for (const auto& name : level.options.constant) constant[levels.find(name).index] = 1;
  if (level.options.reads)
    for (const auto& name : *level.options.reads) declared[levels.find(name).index] = 1;
  require(!constant[level.index] && !declared[level.index],
          "level {}: LevelOptions::reads and ::constant name other levels, not the level itself",
          quoted(level.name));

  for (std::size_t j = 0; j < levels.size(); ++j) {
    if (j == level.index) continue;
    const std::string& other = levels[j].name;
    require(!constant[j] || !declared[j], "level {} declares {} both read and constant; choose one",
            quoted(level.name), quoted(other));
    if (constant[j]) continue;
    if (reached[j] && level.options.reads && !declared[j])
      refuse<ConfigError>(
          "{}: the loss depends on level {}, which LevelOptions::reads does not name; add it "
          "there, or to LevelOptions::constant",
          where(level), quoted(other));
    if (!unseen[j].empty())
      refuse<LossError>(
          "{}: the loss depends on level {} without a graph to its parameters ({}), which would "
          "silently drop a term of the hypergradient; remove detach() and no-grad blocks on the "
          "way, or say that a constant is meant: mlo::stop_gradient(…) for a value{}",
          where(level), quoted(other), unseen[j],
          reached[j] ? ""
                     : message(", LevelOptions::constant = {{\"{}\"}} for the whole level", other));
  }
}

// Of a level that no level below responds to.
void Engine::Body::check_attached(const Level& level) const {
  if (plans[level.index].trains_itself || level.makes_gradient) return;
  refuse<LossError>(
      "{}: the loss is detached: it depends on no parameter this level trains, neither directly "
      "nor through a level below that reads it; remove detach() and no-grad blocks on the way, or, "
      "where on_gradient makes the gradient, name the levels whose values the loss uses "
      "(LevelOptions::constant)",
      where(level));
}

void Engine::Body::check_reaches_top(const Level& level) const {
  for (const std::size_t top : tops)
    if (top == level.index || contains(plans[top].below, level.index)) return;
  refuse<ConfigError>(
      "from level {} no top level can be reached, so it would never step: no graph leads to its "
      "parameters from the loss of {} or of a level that it uses, and these losses did not change "
      "when the parameters were perturbed by a hundredth. Use them in a loss. If one uses them but "
      "is piecewise constant (an accuracy, an argmax), say so there: LevelOptions::constant = "
      "{{\"{}\"}}. Else remove the level, or mark it LevelOptions::top\n{}",
      quoted(level.name), listed(tops, [this](std::size_t top) { return levels[top].name; }),
      level.name, graph.to_string());
}

void Engine::Body::check_method(Level& upper, Level& level) {
  const Needs& needs = level.needs;
  const std::string who = method_of(level);
  require<UnsupportedError>(
      level.rule || !(needs.update_derivative || needs.optimizer_trajectory),
      "{} differentiates the optimizer's update, and {}. Choose a known optimizer, another scale "
      "(IdentityOptions::Scale::learning_rate), or an implicit method such as mlo::cg()",
      who, level.why_no_rule);
  require<UnsupportedError>(
      !needs.differences || level.options.precision != Precision::bfloat16,
      "{} takes differences of a loss that is computed in bfloat16, whose rounding is larger than "
      "they are. Set LevelOptions::precision to float32 for this level, or use mlo::one_step() or "
      "mlo::reverse_over_forward_oracle()",
      who);
  require<UnsupportedError>(!needs.analytic || level.analytic,
                            "{} needs a problem that derives from mlo::AnalyticDerivatives; derive "
                            "from it, or use mlo::one_step()",
                            who);
  if (needs.trajectory) check_trajectory(upper, level);
  if (needs.differences && !built) check_constants(upper, level);
  if (!needs.second_order && !needs.forward_mode) return;
  const UntouchedGuard untouched(levels, level);
  // Around the gradients that are taken of the losses.
  const at::AutoGradMode with_gradients(true);
  const std::vector<Draw>& draws = built ? level.past.last_draws : level.past.pending;
  if (needs.second_order) check_second_order(level, draws);
  if (needs.forward_mode) {
    // Along the parameters themselves: any direction does to see what the loss is made of.
    const SecondOrderGuard attention(true);
    const Tensors& targets = plan_of(upper).sweep->targets(level.index);
    levels.set_gradients_for(level, targets);
    for (const Draw& draw : draws) product_by_duals(level, draw, clone(level.parameters), targets);
    levels.set_all_gradients(true);
  }
}

// Fused attention cannot be differentiated twice. It stays where the gradient of the level's own
// parameters does not come through it (a head on an encoder that another level trains), else the
// engine chooses another kernel, and refuses what chooses for itself.
void Engine::Body::check_second_order(Level& level, const std::vector<Draw>& draws) {
  levels.set_all_gradients(true);
  std::string node;
  for (const bool guarded : {false, true}) {
    level.guarded_attention = guarded;
    const SecondOrderGuard attention(guarded);
    node.clear();
    for (const Draw& draw : draws) {
      const at::Tensor loss = replay(level, draw).loss;
      if (!loss.requires_grad() || !node.empty()) continue;
      if (const std::string wrong = wrong_when_differentiated_twice(loss, level.parameters);
          !wrong.empty())
        refuse<UnsupportedError>(
            "{} differentiates the loss twice, and LibTorch's second derivative of {}, which this "
            "level's parameters pass through, is wrong. Write the operation out (for a weight norm "
            "g * v / v.norm(…)), or use a first-order method for this level: mlo::darts()",
            method_of(level), wrong);
      node = fused_attention_between(
          loss, differentiate(level, loss, level.parameters, /*create_graph=*/true));
    }
    if (node.empty()) return;
  }
  refuse<UnsupportedError>(
      "{} differentiates the loss twice, and the loss uses a fused attention kernel ({}) that "
      "LibTorch cannot differentiate twice. Call at::scaled_dot_product_attention, for which the "
      "engine chooses a kernel that can, or use a first-order method for this level: mlo::darts()",
      method_of(level), node);
}

// An unrolled level has one adjoint for each level it reads and one for itself. That is right only
// if what it reads stands still between its steps, and if those who read it have read its last
// state: in the cycle of a step and in that of Engine::hypergradient, the first time (with warm-up)
// and later.
void Engine::Body::check_trajectory(const Level& upper, const Level& level) const {
  std::vector<std::size_t> moving, readers;
  for (const std::size_t k : plans[upper.index].sweep->order()) {
    if (contains(graph.nodes[level.index].reads, k)) moving.push_back(k);
    if (contains(graph.nodes[k].reads, level.index)) readers.push_back(k);
  }
  const std::vector<int64_t> none(levels.size(), 0);
  for (const auto& turns : {graph.cycle(tops, none), graph.cycle(tops),
                            graph.cycle({upper.index}, none), graph.cycle({upper.index})}) {
    std::vector<std::size_t> taken(levels.size(), 0);
    std::vector<std::size_t> first;                   // the same at the level's first since upper's
    std::vector<std::size_t> read(levels.size(), 0);  // by level: steps of `level` at its last one
    for (const Turn& turn : turns) {
      if (turn.kind == Turn::Kind::start) continue;
      if (turn.level == level.index) {
        if (first.empty()) first = taken;
        for (const std::size_t j : moving)
          if (taken[j] != first[j])
            refuse<UnsupportedError>(
                "{} goes back through several steps, between which level {}, which it reads and "
                "which responds to {}, moves too; one adjoint for all of them would be wrong. "
                "Set {} for level {}, or give it an implicit method such as mlo::cg()",
                method_of(level), quoted(levels[j].name), quoted(upper.name),
                level.options.unroll > 1 ? "unroll = 1" : "warmup_steps = 0", quoted(level.name));
      }
      if (turn.level == upper.index) {
        for (const std::size_t reader : readers)
          if (read[reader] != taken[level.index])
            refuse<UnsupportedError>(
                "{} differentiates the state after its last step, and level {} has read an "
                "earlier one when {} steps. Give the levels that read it the same unroll count, "
                "or give level {} an implicit method such as mlo::cg()",
                method_of(level), quoted(levels[reader].name), quoted(upper.name),
                quoted(level.name));
        first.clear();
      }
      read[turn.level] = taken[level.index];
      ++taken[turn.level];
    }
  }
}

}  // namespace mlo
