// Many paths at the cost of the levels; nested dependence recognized and refused; random graphs
// against Eigen.
#include "mlo/error.h"
#include "mlo/hypergradient/presets.h"
#include "reference.h"

#include "catch.h"

#include <iostream>

using namespace mlo;
using namespace mlo::testing;

namespace {

std::unique_ptr<Method> solved() {
  return cg({.max_iterations = 50, .tolerance = 1e-14, .warm_start = false});
}

std::unique_ptr<Engine> engine_of(const std::shared_ptr<Game>& game) {
  auto engine = std::make_unique<Engine>();
  add_levels(*engine, game, [](std::size_t) {
    LevelOptions options;
    options.optimizer = sgd({.lr = 0.1});
    options.best_response = solved();
    return options;
  });
  return engine;
}

// Layers of two, each level reading both of the layer below; the lowest layer reads the top, the
// top the highest layer.
Shape layers(std::size_t count) {
  Shape result{std::to_string(count) + " layers of two", {}, {2 * count}};
  for (std::size_t layer = 0; layer < count; ++layer)
    for (const auto* side : {"left", "right"})
      result.levels.push_back(
          {side + std::to_string(layer),
           layer == 0 ? Indices{2 * count} : Indices{2 * layer - 2, 2 * layer - 1}});
  result.levels.push_back({"top", {2 * count - 2, 2 * count - 1}});
  return result;
}

// Levels that read those before them in a hidden order; all are reached from the top, and most
// reach it.
Shape random_pipeline(std::size_t below, std::mt19937_64& random) {
  std::bernoulli_distribution half(0.5);
  Indices order(below);
  for (std::size_t i = 0; i < below; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random);
  Shape result{"random", std::vector<LevelShape>(below + 1), {below}};
  std::vector<char> is_read(below, 0);
  for (std::size_t i = 0; i < below; ++i) {
    LevelShape& level = result.levels[order[i]];
    level.name = "level" + std::to_string(order[i]);
    for (std::size_t j = 0; j < i; ++j)
      if (half(random)) {
        level.reads.push_back(order[j]);
        is_read[order[j]] = 1;
      }
    if (i == 0 || half(random)) level.reads.push_back(below);
  }
  result.levels[below].name = "top";
  for (std::size_t j = 0; j < below; ++j)
    if (!is_read[j] || half(random)) result.levels[below].reads.push_back(j);
  return result;
}

// Any reads at all, the top reading everybody.
Shape random_reads(std::size_t below, std::mt19937_64& random) {
  std::bernoulli_distribution rarely(0.3);
  Shape result{"random", {}, {below}};
  for (std::size_t k = 0; k <= below; ++k) {
    LevelShape level{k == below ? "top" : "level" + std::to_string(k)};
    for (std::size_t j = 0; j <= below; ++j)
      if (j != k && (k == below || rarely(random))) level.reads.push_back(j);
    result.levels.push_back(level);
  }
  return result;
}

bool refused_somewhere(const Shape& shape) {
  for (std::size_t u = 0; u < shape.levels.size(); ++u)
    if (is_nested(shape, u)) return true;
  return false;
}

std::string refusal(const Shape& shape) {
  try {
    engine_of(std::make_shared<Game>(shape))->build();
  } catch (const UnsupportedError& error) {
    return error.what();
  }
  return "";
}

// What the engine says about the top, and what Eigen says.
std::pair<Vector, Vector> top_of(const Shape& shape, uint64_t seed = 1) {
  const auto game = std::make_shared<Game>(shape, GameOptions{.seed = seed});
  const auto engine = engine_of(game);
  engine->step();
  const std::size_t u = shape.levels.size() - 1;
  const Vector ours = game->flat(u, engine->hypergradient("top"));
  return {ours, total_derivative(*game, u, game->stacked())};
}

}  // namespace

TEST_CASE("2^K paths take 2K visits, and the value is that of the linear system") {
  for (std::size_t count = 1; count <= 6; ++count) {
    const Shape shape = layers(count);
    const auto game = std::make_shared<Game>(shape);
    const auto engine = engine_of(game);
    engine->step();
    const auto total = [&](auto counter) {
      int64_t sum = 0;
      for (const auto& level : shape.levels) sum += engine->counters(level.name).*counter;
      return sum;
    };
    const auto levels = static_cast<int64_t>(2 * count);
    INFO(count << " layers");
    CHECK(total(&Counters::visits) == levels);
    CHECK(total(&Counters::mixed_products) == levels);
    CHECK(engine->counters("top").visits == 0);
    const Vector ours = game->flat(2 * count, engine->hypergradient("top")), x = game->stacked();
    CHECK(total(&Counters::visits) == 2 * levels);
    CHECK(relative_error(ours, total_derivative(*game, 2 * count, x)) <= 1e-10);

    // All 2^K paths one by one, and all but one.
    std::vector<Matrix> s;
    for (std::size_t k = 0; k < game->levels(); ++k) s.push_back(game->block(k, k, k).inverse());
    CHECK(relative_error(ours, path_sum(*game, 2 * count, x, s)) <= 1e-10);
    CHECK(relative_error(ours, path_sum(*game, 2 * count, x, s, Fault::lost_path)) > 1e-12);
  }
}

TEST_CASE("two hundred random pipelines against the linear system") {
  std::mt19937_64 random(2024);
  double worst = 0.0;
  int many_paths = 0;
  for (int trial = 0; trial < 200; ++trial) {
    const Shape shape = random_pipeline(2 + static_cast<std::size_t>(trial) % 5, random);
    REQUIRE_FALSE(is_nested(shape, shape.levels.size() - 1));
    const auto [ours, exact] = top_of(shape, static_cast<uint64_t>(trial));
    CHECK(relative_error(ours, exact) <= 1e-9);
    worst = std::max(worst, relative_error(ours, exact));
    const auto responding = responds(shape, shape.levels.size() - 1);
    many_paths += std::count(responding.begin(), responding.end(), 1) >= 3 ? 1 : 0;
  }
  CHECK(many_paths >= 100);
  if (std::getenv("MLO_PROOF_WORST")) std::cout << worst << "  random pipelines\n";
}

TEST_CASE("a nested dependence is refused exactly where levels below read each other in a circle") {
  std::mt19937_64 random(7);
  int refused = 0, accepted = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    const Shape shape = random_reads(2 + static_cast<std::size_t>(trial) % 4, random);
    Graph graph;
    for (const auto& level : shape.levels)
      graph.nodes.push_back({level.name, level.reads, {}, level.top});
    for (std::size_t u = 0; u < shape.levels.size(); ++u) {
      if (is_nested(shape, u)) {
        CHECK_THROWS_AS(graph.responding(u), UnsupportedError);
        ++refused;
        continue;
      }
      Indices order = graph.responding(u);
      const auto expected = responds(shape, u);
      CHECK(order.size() ==
            static_cast<std::size_t>(std::count(expected.begin(), expected.end(), 1)));
      for (std::size_t i = 0; i < order.size(); ++i) {
        CHECK(expected[order[i]]);
        for (std::size_t later = i + 1; later < order.size(); ++later) {
          const auto& reads = shape.levels[order[later]].reads;
          CHECK(std::find(reads.begin(), reads.end(), order[i]) == reads.end());
        }
      }
      accepted += order.size() > 1 ? 1 : 0;
    }
    if (trial % 20 == 0) CHECK(refusal(shape).empty() != refused_somewhere(shape));
  }
  CHECK(refused >= 300);
  CHECK(accepted >= 300);
}

TEST_CASE("a nested dependence is refused by name; constants are the way out") {
  // "low" and "mid" read each other, "by" does not.
  const Shape circle{
      "circle", {{"low", {1}}, {"by", {3}}, {"mid", {0, 3}}, {"top", {0, 1, 2}}}, {3}};
  Shape nested = circle;
  nested.levels[0].reads = {2};
  const std::string message = refusal(nested);
  CHECK_THAT(message, Contains("nested dependence") && Contains("'low'") && Contains("'mid'") &&
                          Contains("'top'") && Contains("constant"));
  CHECK_THAT(message, !Contains("'by'"));

  // Either read declared constant: the answer is Eigen's with that term left out, and differs from
  // the other's.
  Shape first = nested, second = nested;
  first.levels[0].reads = {};
  first.levels[0].constant = {2};
  second.levels[2].reads = {3};
  second.levels[2].constant = {0};
  const auto [ours_first, exact_first] = top_of(first);
  CHECK(relative_error(ours_first, exact_first) <= 1e-10);
  const auto [ours_second, exact_second] = top_of(second);
  CHECK(relative_error(ours_second, exact_second) <= 1e-10);
  CHECK(relative_error(ours_first, ours_second) > 1e-3);
}

TEST_CASE("the plain sweep would be wrong on a nested dependence") {
  // The dense sweep, both orders, against the middle level's own condition: its total gradient
  // vanishes.
  const Shape nested{"nested", {{"low", {1, 2}}, {"mid", {0, 2}}, {"top", {0, 1}}}, {2}};
  const Game game(nested);
  const Vector x = game.stacked();
  const auto b = [&](std::size_t k, std::size_t i, std::size_t j) { return game.block(k, i, j); };
  // dθ_low = −H⁻¹(∂₀₁L₀ dθ_mid + ∂₀₂L₀ dθ_top); mid's total gradient ∂₁L₁ + Rᵀ∂₀L₁ with R =
  // −H⁻¹∂₀₁L₀ is linear too.
  const Matrix h = b(0, 0, 0).inverse(), r = -h * b(0, 0, 1), r_top = -h * b(0, 0, 2);
  const Matrix by_mid = b(1, 1, 1) + b(1, 1, 0) * r + r.transpose() * (b(1, 0, 1) + b(1, 0, 0) * r);
  const Matrix by_top =
      b(1, 1, 2) + b(1, 1, 0) * r_top + r.transpose() * (b(1, 0, 2) + b(1, 0, 0) * r_top);
  const Matrix mid = -by_mid.inverse() * by_top, low = r * mid + r_top;
  const Vector exact = game.gradient(2, 2, x) + mid.transpose() * game.gradient(2, 1, x) +
                       low.transpose() * game.gradient(2, 0, x);
  const std::vector<Matrix> s = {h, b(1, 1, 1).inverse(), Matrix()};
  for (const Indices& order : {Indices{0, 1}, Indices{1, 0}})
    CHECK(relative_error(dense_sweep(game, 2, x, s, order), exact) > 1e-2);
}
