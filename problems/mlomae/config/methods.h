#pragma once

#include "mlomae/config/settings.h"

#include <string>
#include <vector>

namespace mlomae {

enum class Masks { uniform, as_initialized, learned };

/// What `run.method` names.
struct Method {
  std::string name;
  int levels;  ///< 3: pretrain, head, masker; 2: pretrain with the head, masker; 1: pretrain
  Masks masks;
  bool uniformity;    ///< whether the first level has the term of that name
  std::string about;  ///< a few words for people

  /// Whether masks are learned, which takes labels and a head.
  bool learns() const { return masks == Masks::learned; }
};

const std::vector<Method>& methods();
std::vector<std::string> method_names();

/// That of `run.method`. Throws mlo::ConfigError naming those there are.
const Method& method_of(const Settings& settings);

}  // namespace mlomae
