#pragma once

#include "mlo/callback.h"

#include <cstdio>
#include <memory>
#include <string>

#pragma GCC visibility push(default)
namespace mlo {

/// What a step of the top level gets through, for a progress bar to show a rate: {512, "images"}.
/// Zero: no rate is shown.
struct Throughput {
  double per_step = 0.0;
  std::string unit = "items";
};
/// Steps, time left, rate and the losses, redrawn in place at most ten times a second; writes
/// nothing if the stream is no terminal. The stream outlives the callback.
std::unique_ptr<Callback> progress_bar(std::FILE* stream, Throughput throughput = {});

}  // namespace mlo
#pragma GCC visibility pop
