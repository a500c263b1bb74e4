#include "mlo/optim/schedule.h"

#include "mlo/error.h"
#include "text.h"

#include <cmath>
#include <numbers>

namespace mlo {
namespace {

double warm_up(int64_t step, int64_t steps) {
  return static_cast<double>(step + 1) / static_cast<double>(steps);
}

}  // namespace

void CosineOptions::validate() const {
  require(steps >= 1,
          "CosineOptions::steps = {}; it must be at least 1: the level's own steps until the end",
          steps);
  require(warmup >= 0 && warmup < steps,
          "CosineOptions::warmup = {}; it must be at least 0 and less than steps = {}", warmup,
          steps);
  require(std::isfinite(final_factor) && final_factor >= 0,
          "CosineOptions::final_factor = {}; it must be finite and at least 0", final_factor);
}

Schedule cosine(CosineOptions options) {
  options.validate();
  return [options](int64_t step) {
    if (step < options.warmup) {
      return warm_up(step, options.warmup);
    }
    const double done = static_cast<double>(step - options.warmup) /
                        static_cast<double>(options.steps - options.warmup);
    const double falling = 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(done, 1.0)));
    return options.final_factor + (1.0 - options.final_factor) * falling;
  };
}

void StepDecayOptions::validate() const {
  require(every >= 1, "StepDecayOptions::every = {}; it must be at least 1", every);
  require(std::isfinite(factor) && factor > 0,
          "StepDecayOptions::factor = {}; it must be positive and finite", factor);
}

Schedule step_decay(StepDecayOptions options) {
  options.validate();
  return [options](int64_t step) {
    return std::pow(options.factor, static_cast<double>(step / options.every));
  };
}

Schedule linear_warmup(int64_t steps) {
  require(steps >= 1, "linear_warmup: steps = {}; it must be at least 1", steps);
  return [steps](int64_t step) { return step < steps ? warm_up(step, steps) : 1.0; };
}

}  // namespace mlo
