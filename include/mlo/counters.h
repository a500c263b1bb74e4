#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
namespace mlo {

/// What one level has done.
struct Counters {
  int64_t steps = 0;      ///< own steps
  int64_t forwards = 0;   ///< evaluations of the loss, probes included
  int64_t backwards = 0;  ///< reverse passes, probes and products included
  int64_t visits = 0;     ///< times a sweep came by
  int64_t hessian_products = 0;
  int64_t mixed_products = 0;
  double seconds = 0.0;    ///< under EngineOptions::profile: own steps, without the levels below
  int64_t peak_bytes = 0;  ///< under EngineOptions::profile: most bytes above the start of a step
                           ///< (CUDA: allocator; CPU: resident set)
};

}  // namespace mlo
#pragma GCC visibility pop
