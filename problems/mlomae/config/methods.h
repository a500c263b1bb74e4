#pragma once

#include "mlomae/config/settings.h"

#include <string>
#include <vector>

namespace mlomae {

/// Of whom masks and weights are: nobody, the images' maps, a masker.
enum class Masks { uniform, known, as_initialized, learned };

/// What `run.method` names.
struct Method {
  std::string name;
  /// 3: pretrain, head, masker; 2: pretrain with the head, masker; 1: pretrain
  int levels;
  Masks masks;
  bool head;          ///< whether there is a head, which takes labels
  bool uniformity;    ///< whether the first level has the term of that name
  std::string about;  ///< a few words for people

  /// Whether masks are learned.
  bool learns() const { return masks == Masks::learned; }
};

const std::vector<Method>& methods();
std::vector<std::string> method_names();

/// That of `run.method`. Throws mlo::ConfigError naming those there are.
const Method& method_of(const Settings& settings);

}  // namespace mlomae
