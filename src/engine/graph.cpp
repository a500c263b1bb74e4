#include "mlo/graph.h"

#include "mlo/error.h"
#include "text.h"

#include <fmt/format.h>

#include <algorithm>

namespace mlo {
namespace {

using Indices = std::vector<std::size_t>;
using Marks = std::vector<char>;

// Top levels are peers: none stands below another, so none responds to another.
bool stands_below(const Graph& graph, std::size_t k, std::size_t u) {
  return k < u && !graph.nodes[k].top;
}

// What a level uses of others: what it reads, and with `constants` also what it takes as constant.
Indices used(const Graph& graph, std::size_t level, bool constants) {
  const Graph::Node& node = graph.nodes[level];
  Indices result = node.reads;
  if (constants) result.insert(result.end(), node.constants.begin(), node.constants.end());
  return result;
}

void check(const Graph& graph, std::size_t level) {
  require(level < graph.nodes.size(), "Graph: level {} of {}; they are counted from 0", level,
          graph.nodes.size());
  for (const Graph::Node& node : graph.nodes)
    for (const Indices& others : {node.reads, node.constants})
      for (const std::size_t other : others)
        require(other < graph.nodes.size(),
                "Graph: {} uses level {} of {}; they are counted from 0", quoted(node.name), other,
                graph.nodes.size());
}

// Levels that `from` reaches by what is used, going on only through levels below u.
Marks reached(const Graph& graph, std::size_t from, std::size_t u, bool constants = false) {
  Marks marks(graph.nodes.size(), 0);
  Indices open = {from};
  while (!open.empty()) {
    const std::size_t node = open.back();
    open.pop_back();
    for (const std::size_t read : used(graph, node, constants)) {
      if (marks[read]) continue;
      marks[read] = 1;
      if (stands_below(graph, read, u)) open.push_back(read);
    }
  }
  return marks;
}

// The members, those that are used by others before those that use them (`first_read`), or the
// other way round; a circle is left over in `circle`. Ties in the order of the levels.
Indices topological(const Graph& graph, Indices members, bool first_read, Indices& circle,
                    bool constants = false) {
  Indices order;
  while (!members.empty()) {
    const auto free = std::find_if(members.begin(), members.end(), [&](std::size_t candidate) {
      return std::none_of(members.begin(), members.end(), [&](std::size_t other) {
        if (other == candidate) return false;
        const Indices reads = used(graph, first_read ? candidate : other, constants);
        return std::find(reads.begin(), reads.end(), first_read ? other : candidate) != reads.end();
      });
    });
    if (free == members.end()) break;
    order.push_back(*free);
    members.erase(free);
  }
  circle = std::move(members);
  return order;
}

std::string names(const Graph& graph, const Indices& members) {
  return listed(members, [&graph](std::size_t member) { return graph.nodes[member].name; });
}

// "a ×2, b, a ×2, b, c", with the longest repetitions that follow each other directly taken
// together: "(a ×2, b) ×2, c".
std::string folded(const Graph& graph, const std::vector<Turn>& turns) {
  std::vector<std::string> words;
  for (const Turn& turn : turns)
    if (turn.kind != Turn::Kind::start) words.push_back(graph.nodes[turn.level].name);
  constexpr std::size_t kLongest = 16;
  for (std::size_t length = 1; length <= kLongest; ++length)
    for (std::size_t i = 0; i + 2 * length <= words.size(); ++i) {
      const auto begin = words.begin() + static_cast<std::ptrdiff_t>(i),
                 end = begin + static_cast<std::ptrdiff_t>(length);
      std::size_t times = 1;
      while (i + (times + 1) * length <= words.size() &&
             std::equal(begin, end, begin + static_cast<std::ptrdiff_t>(times * length)))
        ++times;
      if (times < 2) continue;
      const std::string group = message("{}", fmt::join(begin, end, ", "));

      words.erase(begin + 1, begin + static_cast<std::ptrdiff_t>(times * length));
      words[i] = length > 1 ? message("({}) ×{}", group, times) : message("{} ×{}", group, times);
    }
  return message("{}", fmt::join(words, ", "));
}

}  // namespace

std::vector<std::size_t> Graph::responding(std::size_t u) const {
  check(*this, u);
  const Marks from_u = reached(*this, u, u);
  Indices members;
  for (std::size_t k = 0; k < u; ++k)
    if (stands_below(*this, k, u) && from_u[k] && reached(*this, k, u)[u]) members.push_back(k);

  Indices circle;
  Indices order = topological(*this, members, /*first_read=*/false, circle);
  if (circle.empty()) return order;

  // Peel off what only hangs below the circle, so that the message names the circle itself.
  Indices rest;
  topological(*this, circle, /*first_read=*/true, rest);
  refuse<UnsupportedError>(
      "nested dependence below level {}: {} read each other, so the optimum of one depends on "
      "the optimum of the other, and a sweep that visits each once would be wrong. Either declare "
      "one of the reads constant (LevelOptions::constant: that term is then left out of every "
      "hypergradient, a bias you choose), or make these levels one problem that trains all their "
      "parameters, or let the upper one read {} only through the lower one",
      quoted(nodes[u].name), names(*this, rest), quoted(nodes[u].name));
}

std::vector<std::size_t> Graph::below(std::size_t u) const {
  check(*this, u);
  const Marks from_u = reached(*this, u, u, /*constants=*/true);
  Indices members;
  for (std::size_t k = 0; k < u; ++k)
    if (stands_below(*this, k, u) && from_u[k]) members.push_back(k);
  // In a circle of reads and constants the reads alone say who comes first, in a circle of reads
  // the order of the levels.
  Indices circle, rest;
  Indices order = topological(*this, members, /*first_read=*/true, circle, /*constants=*/true);
  for (const std::size_t member : topological(*this, circle, /*first_read=*/true, rest))
    order.push_back(member);
  order.insert(order.end(), rest.begin(), rest.end());
  return order;
}

std::string Graph::to_string() const {
  std::string text;
  for (std::size_t k = nodes.size(); k-- > 0;) {
    const Node& node = nodes[k];
    check(*this, k);
    text += message("{}{}", node.name, node.top ? " (top)" : "");
    if (!node.reads.empty()) text += message(" reads {}", names(*this, node.reads));
    if (!node.constants.empty()) text += message(", as constants {}", names(*this, node.constants));
    if (const Indices response = responding(k); !response.empty())
      text += message("; its hypergradient passes through {}", names(*this, response));
    text += "\n";
  }
  std::vector<std::size_t> goals;
  bool warms_up = false;
  for (std::size_t k = 0; k < nodes.size(); ++k) {
    if (nodes[k].top) goals.push_back(k);
    warms_up = warms_up || nodes[k].warmup_steps > nodes[k].unroll;
  }
  const std::vector<int64_t> none(nodes.size(), 0);
  if (warms_up) text += message("first step: {}\n", folded(*this, cycle(goals, none)));
  if (!goals.empty()) text += message("one step: {}\n", folded(*this, cycle(goals)));
  return text;
}

}  // namespace mlo
