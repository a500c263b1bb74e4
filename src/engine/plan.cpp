#include "precompiled.h"

#include "engine/body.h"
#include "mlo/hypergradient/method.h"

#include <memory>

namespace mlo {

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
    if (order.empty()) check_attached(*level);
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
    check_reaches_top(*level);
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

}  // namespace mlo
