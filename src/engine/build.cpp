#include "precompiled.h"

#include "engine/body.h"
#include "mlo/error.h"
#include "text.h"

#include <algorithm>

namespace mlo {

void Engine::Body::build() {
  if (built) return;
  require(levels.size() > 0,
          "the engine has no level; call Engine::add before building or running it");
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
    level->past.taken.assign(levels.size(), 0);
    if (level->past.pending.empty()) {  // else a build that failed has drawn them
      if (BatchSource* source = level->options.data.source()) {
        source->seed(stream_key(options.seed, level->stream, /*step=*/-1, 0));
        source->save(level->past.unread.emplace(), "");
      }
      level->past.pending = draw(*level);
    }
    discover_reads(*level);
  }
  plan();
  built = true;
}

void Engine::Body::order_levels() {
  auto& all = levels.all;
  for (const auto& level : all)
    for (const auto& below : level->options.below)
      require(levels.find(below).name != level->name,
              "level {}: LevelOptions::below names the level itself; name others",
              quoted(level->name));
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
      for (const auto& level : all)
        circle += message("{}{} above {}", circle.empty() ? "" : "; ", quoted(level->name),
                          listed(level->options.below));
      for (auto& level : all) ordered.push_back(std::move(level));
      all = std::move(ordered);
      refuse<ConfigError>(
          "the declared orders contradict each other: {}; take out one of them "
          "(LevelOptions::below)",
          circle);
    }
    ordered.push_back(std::move(*next));
    all.erase(next);
  }
  all = std::move(ordered);
  for (std::size_t i = 0; i < all.size(); ++i) all[i]->index = i;
}

}  // namespace mlo
