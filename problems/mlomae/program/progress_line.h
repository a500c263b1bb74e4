#pragma once

#include "mlomae/evaluation/features.h"

#include <string>

namespace mlomae {

/// A line that is redrawn, on a terminal only; elsewhere nothing.
Progress progress_line(const std::string& what);

}  // namespace mlomae
