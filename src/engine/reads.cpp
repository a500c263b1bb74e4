#include "precompiled.h"

#include "engine/body.h"
#include "engine/untouched.h"
#include "level/evaluate.h"
#include "mlo/error.h"
#include "text.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

namespace mlo {
namespace {

// What automatic differentiation reaches from a level's loss.
struct Reach {
  double loss = 0.0;                          // the sum over micro-batches
  std::vector<std::vector<char>> parameters;  // by level, by parameter

  std::vector<char> levels() const {
    std::vector<char> any;
    for (const auto& marks : parameters)
      any.push_back(std::count(marks.begin(), marks.end(), 0) < std::ssize(marks) ? 1 : 0);
    return any;
  }
};

Reach reach_of(Levels& levels, Level& level, std::vector<Draw>& draws) {
  levels.set_all_gradients(true);
  Reach reach;
  Tensors everything;
  for (const auto& other : levels.all) {
    reach.parameters.emplace_back(other->parameters.size(), 0);
    everything.insert(everything.end(), other->parameters.begin(), other->parameters.end());
  }
  const int64_t version = levels.version();
  for (Draw& draw : draws) {
    const Evaluation evaluation = evaluate(level, draw);
    reach.loss += evaluation.loss.item<double>();
    check_unwritten(levels, level, version);
    if (!evaluation.loss.requires_grad()) continue;
    const Tensors gradient =
        differentiate(level, evaluation.loss, everything, /*create_graph=*/false);
    auto part = gradient.begin();
    for (auto& marks : reach.parameters)
      for (char& mark : marks)
        if ((part++)->defined()) mark = 1;
  }
  return reach;
}

// The loss of a level's first step, evaluated again and again: what automatic differentiation does
// not see of it.
class FirstStep {
 public:
  FirstStep(Levels& levels, Level& level, uint64_t seed)
      : levels_(levels),
        level_(level),
        seed_(seed),
        untouched_(levels, level),
        reach_(reach_of(levels, level, level.past.pending)),
        in_order_(level.parameters.front().is_cpu() && at::get_num_threads() == 1),
        rounding_((level.parameters.front().scalar_type() == at::kDouble ? 1e-12 : 1e-5) *
                  std::abs(reach_.loss)) {}

  const Reach& reach() const { return reach_; }

  // The same again must be the same: a probe replays the loss.
  void check_replay() {
    const double again = value();
    if (std::abs(again - reach_.loss) > room())
      refuse<LossError>(
          "{}: the loss changes on replay: {}, then {} with the same parameters, buffers, batch "
          "and random state. Draw random numbers only from LibTorch's default generators, keep no "
          "state between calls, wrap discrete choices in mlo::replayed",
          where(level_), reach_.loss, again);
  }

  // A loss that takes gradients itself needs them on in every evaluation, and so does one that
  // computes another value without them. Another rounding is no other value: which kernel runs may
  // depend on what requires a gradient.
  bool takes_gradients() {
    levels_.set_all_gradients(false);
    bool takes = true;
    try {
      takes = std::abs(value() - reach_.loss) > rounding_;
    } catch (const Error&) {  // LibTorch's; what the user throws is not about gradients
    }
    levels_.set_all_gradients(true);
    return takes;
  }

  // The parameters of another level, by name, that the value depends on without a graph to them:
  // they would silently drop a term. Empty if there are none.
  std::string unseen(Level& other) {
    std::vector<std::size_t> rest;
    for (std::size_t p = 0; p < other.parameters.size(); ++p)
      if (!reach_.parameters[other.index][p]) rest.push_back(p);
    // All at once, as a model may have many that are not used; one by one only to say which.
    if (rest.empty() || !changes(other, rest)) return "";
    std::vector<std::string> names;
    for (const std::size_t p : rest)
      if (changes(other, {p})) names.push_back(other.parameter_names[p]);
    return names.empty() ? "several together" : listed(names);
  }

 private:
  // On a GPU, and where several threads write to one place, sums may come in another order.
  double room() const { return in_order_ ? 0.0 : rounding_; }

  double value() {
    untouched_.buffers_again();
    double sum = 0.0;
    for (const Draw& draw : level_.past.pending) sum += replay(level_, draw).loss.item<double>();
    return sum;
  }

  bool changes(Level& other, const std::vector<std::size_t>& perturbed) {
    const RewindGuard back(other.parameters, other.values.freeze(), other.scratch);
    for (const std::size_t p : perturbed) {
      const at::NoGradGuard no_grad;
      const auto& parameter = other.parameters[p];
      const auto count = std::max<double>(1.0, static_cast<double>(parameter.numel()));
      const double size = std::max(0.1, norm({parameter}) / std::sqrt(count));
      seed_generators(stream_key(seed_, other.stream, -3, static_cast<int64_t>(p)));
      parameter.add_(at::randn_like(parameter), 0.01 * size);
    }
    try {
      return std::abs(value() - reach_.loss) > room();
    } catch (const Error&) {
      return true;  // not finite any more
    }
  }

  Levels& levels_;
  Level& level_;
  const uint64_t seed_;
  const UntouchedGuard untouched_;
  const Reach reach_;
  const bool in_order_;
  const double rounding_;
};

}  // namespace

void Engine::Body::discover_reads(Level& level) {
  FirstStep first(levels, level, options.seed);
  first.check_replay();
  level.takes_gradients = first.takes_gradients();
  std::vector<std::string> unseen(levels.size());
  for (const auto& other : levels.all) {
    const auto& constants = level.options.constant;
    const bool constant = std::count(constants.begin(), constants.end(), other->name) != 0;
    if (other->index != level.index && !constant) unseen[other->index] = first.unseen(*other);
  }
  note_reads(level, first.reach().levels(), unseen);
}

void Engine::Body::look_at_reads_again() {
  const Graph before = graph;
  const ExclusiveGuard exclusive(*this);
  const ThawGuard thawed(levels);
  for (const auto& level : levels.all) {
    const Graph::Node& node = graph.nodes[level->index];
    const bool knows_all = node.reads.size() + node.constants.size() + 1 == levels.size();
    if (level->past.last_draws.empty() || knows_all) continue;
    try {
      const UntouchedGuard untouched(levels, *level);
      const Reach reach = reach_of(levels, *level, level->past.last_draws);
      note_reads(*level, reach.levels(), std::vector<std::string>(levels.size()));
    } catch (const NonFiniteError&) {
      // Of the last batch at the new parameters: the next step is the one to say so, if it matters.
    }
  }
  bool same = true;
  for (std::size_t i = 0; i < levels.size(); ++i)
    same &= before.nodes[i].reads == graph.nodes[i].reads;
  if (!same) plan();
  for (const auto& level : levels.all) level->past.last_draws.clear();
}

void Engine::Body::note_reads(const Level& level, const std::vector<char>& reached,
                              const std::vector<std::string>& unseen) {
  check_declared(level, reached, unseen);
  std::vector<char> constant(levels.size(), 0), read = reached;
  for (const auto& name : level.options.constant) constant[levels.find(name).index] = 1;
  if (level.options.reads)
    for (const auto& name : *level.options.reads) read[levels.find(name).index] = 1;
  Graph::Node& node = graph.nodes[level.index];
  for (std::size_t j = 0; j < levels.size(); ++j) {
    if (j == level.index) continue;
    if (constant[j] && !built) node.constants.push_back(j);
    if (!constant[j] && read[j] && !contains(node.reads, j)) node.reads.push_back(j);
  }
  std::sort(node.reads.begin(), node.reads.end());
  plan_of(level).trains_itself |= reached[level.index] != 0;
}

}  // namespace mlo
