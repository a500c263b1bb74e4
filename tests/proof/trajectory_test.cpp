// What unrolled refuses: a lower level that moves between the steps it goes through, or between
// those that read it.
#include "curved.h"
#include "mlo/error.h"
#include "mlo/hypergradient/presets.h"

#include "catch.h"

using namespace mlo;
using namespace mlo::testing;

namespace {

struct Plan {
  std::string shape;
  std::vector<int64_t> unroll, warmup;  // by level
  std::vector<char> unrolled;           // by level: else one step
};

std::unique_ptr<Engine> engine_of(const Plan& plan, const std::shared_ptr<Game>& game) {
  auto engine = std::make_unique<Engine>();
  add_levels(*engine, game, [&](std::size_t k) {
    LevelOptions options;
    options.optimizer = sgd({.lr = 0.3});
    if (k < plan.unroll.size()) {
      options.unroll = plan.unroll[k];
      options.warmup_steps = plan.warmup.empty() ? 0 : plan.warmup[k];
      options.best_response = plan.unrolled[k] ? unrolled() : one_step();
    }
    return options;
  });
  return engine;
}

// The message of the refusal, or nothing.
std::string refusal(const Plan& plan) {
  const auto game = std::make_shared<Game>(shape(plan.shape), GameOptions{.curved = true});
  try {
    engine_of(plan, game)->build();
  } catch (const UnsupportedError& error) {
    return error.what();
  }
  return "";
}

// Against autograd through all steps taken.
double error(const Plan& plan, int steps) {
  const auto game = std::make_shared<Game>(shape(plan.shape), GameOptions{.curved = true});
  const auto start = copied(game->parameters);
  const auto engine = engine_of(plan, game);
  for (int i = 0; i < steps; ++i) engine->step();
  const std::size_t u = game->shape.uppers.back(), mark = game->log.size();
  const Vector ours = game->flat(u, engine->hypergradient(game->shape.levels[u].name));
  return relative_error(
      ours,
      replay(*game, u, start, mark,
             {.optimizers = std::vector<Setup>(game->levels(), {"", Kind::sgd, {{.lr = 0.3}}})})
          .derivative);
}

}  // namespace

TEST_CASE("unrolled over a level that moves between its steps is refused by name") {
  CHECK_THAT(refusal({"chain of three", {1, 2}, {}, {1, 1}}),
             Contains("'mid'") && Contains("'low'") && Contains("unroll = 1"));
  CHECK(refusal({"chain of three", {2, 1}, {}, {1, 1}}).empty());
  CHECK(error({"chain of three", {2, 1}, {}, {1, 1}}, 2) <= 1e-12);
  // One step for several is another approximation, and no reason to refuse.
  CHECK(refusal({"chain of three", {1, 2}, {}, {1, 0}}).empty());
  CHECK(refusal({"diamond", {1, 3, 1}, {}, {0, 1, 0}}) != "");
}

TEST_CASE("unrolled below levels that read it at different ages is refused by name") {
  // right's second step moves base on; left has read it before.
  CHECK_THAT(refusal({"diamond", {1, 1, 2}, {}, {1, 0, 0}}),
             Contains("'base'") && Contains("'left'"));
  CHECK_THAT(refusal({"diamond", {2, 1, 2}, {}, {1, 0, 0}}),
             Contains("'base'") && Contains("'left'"));
  // left takes its two steps first: both then read the last state.
  CHECK(refusal({"diamond", {1, 2, 1}, {}, {1, 0, 0}}).empty());
  CHECK(refusal({"diamond", {3, 1, 1}, {}, {1, 1, 1}}).empty());
  CHECK(error({"diamond", {3, 1, 1}, {}, {1, 1, 1}}, 2) <= 1e-12);
}

TEST_CASE(
    "unrolled through warm-up steps is exact, or refused where a lower level moves in between") {
  CHECK(refusal({"two levels", {2}, {7}, {1}}).empty());
  CHECK(error({"two levels", {2}, {7}, {1}}, 0) <= 1e-12);
  CHECK(error({"two levels", {2}, {7}, {1}}, 1) <= 1e-12);
  CHECK_THAT(refusal({"chain of three", {1, 1}, {0, 3}, {1, 1}}),
             Contains("'mid'") && Contains("'low'") && Contains("warmup_steps = 0"));
  CHECK(refusal({"chain of three", {1, 1}, {3, 1}, {1, 1}}).empty());
  CHECK(error({"chain of three", {1, 1}, {3, 1}, {1, 1}}, 0) <= 1e-12);
  CHECK(error({"chain of three", {1, 1}, {3, 1}, {1, 1}}, 2) <= 1e-12);
}
