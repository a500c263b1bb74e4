#pragma once

#include "mlomae/data/dataset.h"

namespace mlomae {

/// Bytes of memory that this process may have: the machine's, or its control group's where that is
/// less.
double machine_bytes();

/// What a run needs at the very least, in bytes: networks, gradients and optimizer, what one step
/// of the largest level keeps, and batches that are prepared ahead. Throws mlo::ConfigError naming
/// the settings that take the most where that is more than `available`.
void check_memory(const Settings& settings, const Dataset& dataset,
                  double available = machine_bytes());

}  // namespace mlomae
