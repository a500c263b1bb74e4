// Who steps when, and how often.
#include "engine/support.h"

namespace {

/// A level that wants to be the sum of what it reads.
Lambda sum_of(const at::Tensor& own, const Tensors& reads) {
  return {own, [=](const Batch&) {
            at::Tensor difference = own - 1.0;
            for (const auto& other : reads) difference = difference - 0.3 * other;
            return 0.5 * difference.square();
          }};
}

LevelOptions unrolls(int64_t unroll, int64_t warmup = 0) {
  return {.optimizer = mlo::sgd({.lr = 0.1}), .unroll = unroll, .warmup_steps = warmup};
}

std::map<std::string, int64_t> counts(Engine& engine) {
  std::map<std::string, int64_t> result;
  for (const auto& name : engine.level_names()) result[name] = engine.counters(name).steps;
  return result;
}

using Counts = std::map<std::string, int64_t>;

}  // namespace

TEST_CASE("A level steps when the levels below have taken their unroll counts", "[engine][order]") {
  const at::Tensor a = leaf(0.1), b = leaf(0.2), c = leaf(0.3), d = leaf(0.4);
  Engine engine;
  const auto steps = [&](int64_t n) {
    for (int64_t i = 0; i < n; ++i) engine.step();
    return counts(engine);
  };

  SECTION("a chain with unroll 2, 1, 1") {
    engine.add("a", sum_of(a, {c}), unrolls(2));
    engine.add("b", sum_of(b, {a}), unrolls(1));
    engine.add("c", sum_of(c, {b}), unrolls(1));
    CHECK(steps(1) == Counts{{"a", 2}, {"b", 1}, {"c", 1}});
    CHECK(steps(4) == Counts{{"a", 10}, {"b", 5}, {"c", 5}});
  }
  SECTION("the same where the top also reads the lowest") {
    engine.add("a", sum_of(a, {c}), unrolls(2));
    engine.add("b", sum_of(b, {a}), unrolls(1));
    engine.add("c", sum_of(c, {a, b}), unrolls(1));
    CHECK(steps(3) == Counts{{"a", 6}, {"b", 3}, {"c", 3}});
  }
  SECTION("unroll 3 in the middle") {
    engine.add("a", sum_of(a, {c}), unrolls(2));
    engine.add("b", sum_of(b, {a}), unrolls(3));
    engine.add("c", sum_of(c, {b}), unrolls(1));
    CHECK(steps(1) == Counts{{"a", 6}, {"b", 3}, {"c", 1}});
    CHECK(steps(2) == Counts{{"a", 18}, {"b", 9}, {"c", 3}});
  }
  SECTION("two levels below") {
    engine.add("a", sum_of(a, {c}), unrolls(2));
    engine.add("b", sum_of(b, {c}), unrolls(5));
    engine.add("c", sum_of(c, {a, b}), unrolls(1));
    CHECK(steps(2) == Counts{{"a", 4}, {"b", 10}, {"c", 2}});
  }
  SECTION("several tops share the steps below") {
    engine.add("a", sum_of(a, {}), unrolls(2));
    for (const auto& [name, own] : {std::pair{"b", b}, std::pair{"c", c}})
      engine.add(name, sum_of(own, {a}), {.optimizer = mlo::sgd({.lr = 0.1}), .top = true});
    CHECK(steps(3) == Counts{{"a", 6}, {"b", 3}, {"c", 3}});
    CHECK(engine.steps_taken() == 3);
  }
  SECTION("a diamond") {
    engine.add("a", sum_of(a, {d}), unrolls(2));
    engine.add("b", sum_of(b, {a}), unrolls(1));
    engine.add("c", sum_of(c, {a}), unrolls(1));
    engine.add("d", sum_of(d, {b, c}), unrolls(1));
    CHECK(steps(3) == Counts{{"a", 6}, {"b", 3}, {"c", 3}, {"d", 3}});
  }
  SECTION("a diamond of which one side takes two steps") {
    engine.add("a", sum_of(a, {d}), unrolls(2));
    engine.add("b", sum_of(b, {a}), unrolls(2));
    engine.add("c", sum_of(c, {a}), unrolls(1));
    engine.add("d", sum_of(d, {b, c}), unrolls(1));
    CHECK(steps(1) == Counts{{"a", 4}, {"b", 2}, {"c", 1}, {"d", 1}});
  }
  SECTION("warm-up makes a level's first wait longer, and nobody else's") {
    engine.add("a", sum_of(a, {c}), unrolls(2, 10));
    engine.add("b", sum_of(b, {c}), unrolls(1));
    engine.add("c", sum_of(c, {a, b}), unrolls(1));
    CHECK(steps(1) == Counts{{"a", 10}, {"b", 1}, {"c", 1}});
    CHECK(steps(2) == Counts{{"a", 14}, {"b", 3}, {"c", 3}});
  }
  SECTION("a warm-up shorter than the unroll count changes nothing") {
    engine.add("a", sum_of(a, {b}), unrolls(3, 2));
    engine.add("b", sum_of(b, {a}), unrolls(1));
    CHECK(steps(2) == Counts{{"a", 6}, {"b", 2}});
  }
}

TEST_CASE("A hypergradient lets the levels below step, and not its own", "[engine][order]") {
  const at::Tensor a = leaf(0.1), b = leaf(0.2);
  Engine engine;
  engine.add("a", sum_of(a, {b}), unrolls(2));
  engine.add("b", sum_of(b, {a}), unrolls(1));
  engine.hypergradient("b");
  CHECK(counts(engine) == Counts{{"a", 2}, {"b", 0}});
  CHECK(b.item<double>() == 0.2);
  engine.step();
  CHECK(counts(engine) == Counts{{"a", 4}, {"b", 1}});
}

TEST_CASE("Hooks are called in order", "[engine][hooks]") {
  const at::Tensor a = leaf(0.1), b = leaf(0.2);
  std::vector<std::string> log;
  Engine engine({.steps = 2});
  auto low = sum_of(a, {b}), up = sum_of(b, {a});
  low.log = up.log = &log;
  low.name = "low";
  up.name = "up";
  auto options = unrolls(3);
  options.data = mlo::tensor_source({at::arange(8)}, {.batch_size = 2});
  engine.add("low", std::move(low), std::move(options));
  engine.add("up", std::move(up),
             {.optimizer = mlo::sgd({.lr = 0.1}), .data = mlo::Batch{at::arange(3)}});
  engine.build();
  CHECK(log.empty());
  engine.run();
  const std::vector<std::string> expected = {
      "low start",   "low gradient", "low step",     "low gradient", "low step",     "low gradient",
      "low step",    "up gradient",  "up step",      "up epoch 1",   "low start",    "low gradient",
      "low step",    "low epoch 1",  "low gradient", "low step",     "low gradient", "low step",
      "up gradient", "up step",      "up epoch 2"};
  CHECK(log == expected);
}

TEST_CASE("An inner loop starts once for each wait, warm-up included", "[engine][hooks]") {
  const at::Tensor a = leaf(0.1), b = leaf(0.2), c = leaf(0.3);
  std::vector<std::string> log;
  Engine engine;
  auto low = sum_of(a, {c});
  low.log = &log;
  low.name = "low";
  engine.add("low", std::move(low), unrolls(2, 5));
  engine.add("middle", sum_of(b, {a}), unrolls(3));
  engine.add("up", sum_of(c, {b}), unrolls(1));
  engine.step();
  engine.step();
  CHECK(engine.counters("low").steps == 5 + 2 + 2 + 6);
  CHECK(std::count(log.begin(), log.end(), "low start") == 6);
}

TEST_CASE("Every epoch is announced, also when a step goes through several", "[engine][hooks]") {
  const at::Tensor a = leaf(0.1);
  std::vector<std::string> log;
  Engine engine;
  auto only = alone(a);
  only.log = &log;
  engine.add("only", std::move(only),
             {.optimizer = mlo::sgd(),
              .data = mlo::tensor_source({at::arange(4)}, {.batch_size = 2}),
              .accumulate = 6});
  engine.step();
  CHECK(log == std::vector<std::string>{" gradient", " step", " epoch 1", " epoch 2", " epoch 3"});
}

TEST_CASE("The graph is found and can be printed", "[engine][graph]") {
  const at::Tensor a = leaf(0.1), b = leaf(0.2), c = leaf(0.3);
  Engine engine;
  engine.add("a", sum_of(a, {c}), unrolls(1));
  engine.add("b", sum_of(b, {a}), unrolls(1));
  engine.add("c", sum_of(c, {a, b}), unrolls(1));
  const mlo::Graph& graph = engine.graph();
  CHECK(graph.nodes[0].reads == std::vector<std::size_t>{2});
  CHECK(graph.nodes[1].reads == std::vector<std::size_t>{0});
  CHECK(graph.nodes[2].reads == std::vector<std::size_t>{0, 1});
  CHECK(graph.responding(2) == std::vector<std::size_t>{1, 0});
  CHECK(graph.below(2) == std::vector<std::size_t>{0, 1});
  CHECK(graph.to_string() ==
        "c (top) reads 'a', 'b'; its hypergradient passes through 'b', 'a'\nb reads 'a'\na reads "
        "'c'\none step: a, b, c\n");
}
