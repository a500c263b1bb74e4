#pragma once

#include "mlomae/config/settings.h"

#include <string>
#include <vector>

namespace mlomae {

struct Preset {
  std::string name, about;
};
std::vector<Preset> presets();

/// The settings of a preset. Throws mlo::ConfigError naming those there are.
Settings preset(const std::string& name);

}  // namespace mlomae
