#include "mlo/graph.h"

#include "text.h"

#include <limits>
#include <utility>

namespace mlo {
namespace {

class Order {
 public:
  Order(const Graph& graph, std::vector<int64_t> steps)
      : graph_(graph),
        steps_(std::move(steps)),
        below_(graph.nodes.size()),
        since_(graph.nodes.size(), std::vector<int64_t>(graph.nodes.size(), 0)) {
    for (std::size_t k = 0; k < below_.size(); ++k) below_[k] = graph.below(k);
  }

  void step(std::size_t level, bool last) {
    for (const std::size_t below : below_[level]) wait(level, below);
    turns_.push_back({level, last ? Turn::Kind::last_step : Turn::Kind::step});
    for (const std::size_t below : below_[level]) since_[below][level] = 0;
    for (int64_t& count : since_[level]) ++count;
    ++steps_[level];
  }

  std::vector<Turn> take() { return std::move(turns_); }

 private:
  void wait(std::size_t level, std::size_t below) {
    const Graph::Node& node = graph_.nodes[below];
    const int64_t &since = since_[below][level], &steps = steps_[below];
    while (since < node.unroll || steps < node.warmup_steps) {
      if (since == 0) turns_.push_back({below, Turn::Kind::start});
      step(below, /*last=*/since + 1 >= node.unroll && steps + 1 >= node.warmup_steps);
    }
  }

  const Graph& graph_;
  std::vector<int64_t> steps_;  // that each level has taken
  std::vector<std::vector<std::size_t>> below_;
  std::vector<std::vector<int64_t>>
      since_;  // [level][upper]: steps of the level since the last one of upper
  std::vector<Turn> turns_;
};

}  // namespace

std::vector<Turn> Graph::cycle(const std::vector<std::size_t>& goals,
                               const std::vector<int64_t>& taken) const {
  constexpr int64_t kWarm = std::numeric_limits<int64_t>::max() / 2;
  require(taken.empty() || taken.size() == nodes.size(),
          "Graph::cycle: taken = {} numbers; it must be one for each of {} levels, or none",
          taken.size(), nodes.size());
  for (const std::size_t goal : goals)
    require(goal < nodes.size(), "Graph::cycle: goal {} of {} levels; they are counted from 0",
            goal, nodes.size());
  Order order(*this, taken.empty() ? std::vector<int64_t>(nodes.size(), kWarm) : taken);
  for (const std::size_t goal : goals) order.step(goal, /*last=*/true);
  return order.take();
}

}  // namespace mlo
