#pragma once

#include <cstdint>
#include <functional>

#pragma GCC visibility push(default)
namespace mlo {

/// A learning-rate schedule: the factor on each parameter group's initial learning rate at the
/// level's own step (from 0). A function of the step alone, so there is nothing to save.
using Schedule = std::function<double(int64_t step)>;

struct CosineOptions {
  int64_t steps = 0;        ///< own steps until the end; needed
  int64_t warmup = 0;       ///< linear from 0 to 1 over the first steps: (step+1)/warmup
  double final_factor = 0;  ///< reached at `steps`, kept after

  void validate() const;
};
/// Half a cosine from 1 to final_factor, after a linear warm-up.
Schedule cosine(CosineOptions options);

struct StepDecayOptions {
  int64_t every = 1;
  double factor = 0.1;

  void validate() const;
};
/// factor^⌊step/every⌋.
Schedule step_decay(StepDecayOptions options);

/// Linear from 0 to 1 over the first steps, (step+1)/steps, then 1.
Schedule linear_warmup(int64_t steps);

}  // namespace mlo
#pragma GCC visibility pop
