#include "mlo/optim/schedule.h"

#include "mlo/error.h"

#include <cmath>
#include <limits>

#include "catch.h"

using namespace mlo;

TEST_CASE("cosine falls from 1 to the final factor after a linear warm-up", "[schedule]") {
  const auto factor = cosine({.steps = 110, .warmup = 10, .final_factor = 0.2});
  CHECK(factor(0) == Approx(0.1));
  CHECK(factor(8) == Approx(0.9));
  CHECK(factor(9) == 1.0);
  CHECK(factor(10) == 1.0);
  CHECK(factor(35) == Approx(0.2 + 0.8 * (1 + std::sqrt(0.5)) / 2));
  CHECK(factor(60) == Approx(0.6));
  CHECK(factor(109) > 0.2);
  CHECK(factor(110) == Approx(0.2));
  CHECK(factor(100000) == Approx(0.2));
  CHECK(cosine({.steps = 4})(2) == Approx(0.5));
  CHECK(cosine({.steps = 4})(4) == Approx(0.0).margin(1e-16));
}

TEST_CASE("step decay multiplies by a factor every so many steps", "[schedule]") {
  const auto factor = step_decay({.every = 3, .factor = 0.5});
  CHECK(factor(0) == 1.0);
  CHECK(factor(2) == 1.0);
  CHECK(factor(3) == 0.5);
  CHECK(factor(8) == 0.25);
}

TEST_CASE("linear warm-up reaches 1 and stays there", "[schedule]") {
  const auto factor = linear_warmup(4);
  CHECK(factor(0) == 0.25);
  CHECK(factor(2) == 0.75);
  CHECK(factor(3) == 1.0);
  CHECK(factor(4) == 1.0);
}

TEST_CASE("a schedule's option out of range is named, with its value and the constraint",
          "[schedule][error]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(cosine({}), ConfigError);
  CHECK_THROWS_WITH(
      cosine({}),
      "CosineOptions::steps = 0; it must be at least 1: the level's own steps until the end");
  CHECK_THROWS_WITH(cosine({.steps = 5, .warmup = 5}),
                    "CosineOptions::warmup = 5; it must be at least 0 and less than steps = 5");
  CHECK_THROWS_WITH(cosine({.steps = 5, .warmup = -1}),
                    "CosineOptions::warmup = -1; it must be at least 0 and less than steps = 5");
  CHECK_THROWS_WITH(cosine({.steps = 5, .final_factor = -0.1}),
                    "CosineOptions::final_factor = -0.1; it must be finite and at least 0");
  CHECK_THROWS_AS(cosine({.steps = 5, .final_factor = nan}), ConfigError);
  CHECK_THROWS_WITH(step_decay({.every = 0}), "StepDecayOptions::every = 0; it must be at least 1");
  CHECK_THROWS_WITH(step_decay({.factor = 0}),
                    "StepDecayOptions::factor = 0; it must be positive and finite");
  CHECK_THROWS_AS(step_decay({.factor = nan}), ConfigError);
  CHECK_THROWS_WITH(linear_warmup(0), "linear_warmup: steps = 0; it must be at least 1");
}
