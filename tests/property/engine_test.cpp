// The engine against the same training written by hand, on random specifications.
// MLO_PROPERTY_SEED=n replays one of them.
#include "property/problems.h"

#include "catch.h"

#include <cstdlib>
#include <iostream>

using namespace mlo;
using namespace mlo::testing;

namespace {

constexpr double kTolerance = 1e-9;

std::vector<uint64_t> seeds(uint64_t first, uint64_t count) {
  if (const char* one = std::getenv("MLO_PROPERTY_SEED")) return {std::strtoull(one, nullptr, 10)};
  std::vector<uint64_t> result;
  for (uint64_t i = 0; i < count; ++i) result.push_back(first + i);
  return result;
}

std::vector<std::size_t> tops(const Spec& spec) {
  std::vector<std::size_t> result;
  for (std::size_t k = 0; k < spec.levels.size(); ++k)
    if (spec.levels[k].top || k + 1 == spec.levels.size()) result.push_back(k);
  return result;
}

struct Outcome {
  double trajectory = 0.0, hypergradient = 0.0;  // relative errors
  double response = 0.0;  // part of the hypergradient that goes through the levels below
};

// After some steps of the tops, the hypergradient of one of them.
Outcome run(const Spec& spec, double factor = 1.0) {
  const auto world = std::make_shared<World>(spec);
  ByHand by_hand(*world);
  const auto engine = engine_of(world, factor);
  const auto steps = static_cast<int>(spec.seed % 3);
  for (int i = 0; i < steps; ++i) engine->step();
  for (auto& list : world->recent) list.clear();
  const std::size_t u = tops(spec)[spec.seed % tops(spec).size()];
  Outcome outcome;
  for (int i = 0; i < steps; ++i) by_hand.cycle();
  for (std::size_t k = 0; k < spec.levels.size(); ++k)
    outcome.trajectory =
        std::max(outcome.trajectory, relative_error(world->parameters[k], by_hand.values[k]));
  const Tensors ours = engine->hypergradient(world->name(u));
  const ByHand::Derivative truth = by_hand.hypergradient(u);
  outcome.hypergradient = relative_error(ours, truth.total);
  outcome.response = relative_error(truth.direct, truth.total);
  return outcome;
}

}  // namespace

TEST_CASE("hypergradients of random engines are autograd through the steps written by hand") {
  double worst = 0.0;
  int responding = 0;
  const auto all = seeds(1, 500);
  for (const uint64_t seed : all) {
    const Spec spec = random_spec(seed);
    INFO(spec.to_string());
    const Outcome outcome = run(spec);
    CHECK(outcome.trajectory <= kTolerance);
    CHECK(outcome.hypergradient <= kTolerance);
    worst = std::max(worst, outcome.hypergradient);
    responding += outcome.response > 1e-6 ? 1 : 0;
  }
  if (all.size() > 1) CHECK(responding > 300);
  if (std::getenv("MLO_PROOF_WORST"))
    std::cout << worst << "  hypergradients of random engines, " << responding
              << " with a response\n";
}

TEST_CASE("random engines end where the training written by hand ends") {
  for (const uint64_t seed : seeds(1001, 200)) {
    const Spec spec = random_spec(seed);
    INFO(spec.to_string());
    const auto world = std::make_shared<World>(spec);
    ByHand by_hand(*world);
    engine_of(world)->run();
    for (int i = 0; i < 5; ++i) by_hand.cycle();
    for (std::size_t k = 0; k < spec.levels.size(); ++k) {
      INFO("level " << k);
      CHECK(relative_error(world->parameters[k], by_hand.values[k]) <= kTolerance);
    }
  }
}

TEST_CASE("the comparison refuses a method that is wrong by a hundredth") {
  int noticed = 0, responding = 0;
  for (const uint64_t seed : seeds(1, 60)) {
    const Spec spec = random_spec(seed);
    INFO(spec.to_string());
    const Outcome right = run(spec), wrong = run(spec, 1.01);
    if (right.response < 1e-6) continue;
    ++responding;
    noticed +=
        wrong.hypergradient > 10.0 * kTolerance || wrong.trajectory > 10.0 * kTolerance ? 1 : 0;
  }
  CHECK(noticed == responding);
  if (!std::getenv("MLO_PROPERTY_SEED")) CHECK(responding > 40);
}
