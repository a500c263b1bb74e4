#pragma once

#include "mlomae/report/overview.h"

#include <string>

namespace mlomae {

/// The parts of the page, from top to bottom, as HTML.
std::string runs_part(const Overview& overview);
std::string curves_part(const Overview& overview);
/// Empty where no run has pictures.
std::string masks_part(const Overview& overview);
std::string settings_part(const Overview& overview);

/// style.css
const char* style_sheet();

}  // namespace mlomae
