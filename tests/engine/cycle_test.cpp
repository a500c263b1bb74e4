// Who steps when, as a list: no tensors here.
#include <mlo/graph.h>

#include "catch.h"

using mlo::Graph;
using mlo::Turn;

namespace {

constexpr auto start = Turn::Kind::start;
constexpr auto step = Turn::Kind::step;
constexpr auto last = Turn::Kind::last_step;

Graph::Node node(std::string name, std::vector<std::size_t> reads, int64_t unroll = 1,
                 int64_t warmup_steps = 0, bool top = false) {
  return {.name = std::move(name),
          .reads = std::move(reads),
          .constants = {},
          .top = top,
          .unroll = unroll,
          .warmup_steps = warmup_steps};
}

std::string order(const Graph& graph) {
  const std::string text = graph.to_string();
  const auto at = text.find("first step: ") != std::string::npos ? text.find("first step: ")
                                                                 : text.find("one step: ");
  return text.substr(at);
}

}  // namespace

TEST_CASE("The cycle is a list of starts and steps", "[engine][cycle]") {
  const Graph chain{{node("a", {2}, 2), node("b", {0}), node("c", {1}, 1, 0, true)}};
  // The top waits for both; what it has waited for counts for the level between, too.
  CHECK((chain.cycle({2}) ==
         std::vector<Turn>{{0, start}, {0, step}, {0, last}, {1, start}, {1, last}, {2, last}}));
  CHECK((chain.cycle({1}) == std::vector<Turn>{{0, start}, {0, step}, {0, last}, {1, last}}));
  CHECK((chain.cycle({0}) == std::vector<Turn>{{0, last}}));
}

TEST_CASE("Warm-ups make first waits longer, by the steps that are missing", "[engine][cycle]") {
  const Graph graph{{node("a", {1}, 1, 3), node("b", {0}, 1, 0, true)}};
  CHECK((graph.cycle({1}, {0, 0}) ==
         std::vector<Turn>{{0, start}, {0, step}, {0, step}, {0, last}, {1, last}}));
  CHECK((graph.cycle({1}, {2, 0}) == std::vector<Turn>{{0, start}, {0, last}, {1, last}}));
  CHECK((graph.cycle({1}, {3, 7}) == graph.cycle({1})));
}

TEST_CASE("The order of steps is printed with its repetitions", "[engine][cycle]") {
  const std::tuple<const char*, Graph, const char*> table[] = {
      {"chain",
       {{node("a", {2}, 2), node("b", {0}), node("c", {1}, 1, 0, true)}},
       "one step: a ×2, b, c\n"},
      {"middle unrolled",
       {{node("a", {2}, 2), node("b", {0}, 3), node("c", {1}, 1, 0, true)}},
       "one step: (a ×2, b) ×3, c\n"},
      {"two below",
       {{node("a", {2}, 2), node("b", {2}, 5), node("c", {0, 1}, 1, 0, true)}},
       "one step: a ×2, b ×5, c\n"},
      {"two tops",
       {{node("a", {}, 2), node("b", {0}, 1, 0, true), node("c", {0}, 1, 0, true)}},
       "one step: a ×2, b, c\n"},
      {"diamond",
       {{node("a", {3}, 2), node("b", {0}, 2), node("c", {0}), node("d", {1, 2}, 1, 0, true)}},
       "one step: (a ×2, b) ×2, c, d\n"},
      {"warm-up",
       {{node("a", {1}, 2, 10), node("b", {0}, 1, 0, true)}},
       "first step: a ×10, b\none step: a ×2, b\n"},
      {"alone", {{node("a", {}, 1, 0, true)}}, "one step: a\n"},
  };
  for (const auto& [name, graph, words] : table) {
    INFO(name);
    CHECK(order(graph) == words);
  }
}
