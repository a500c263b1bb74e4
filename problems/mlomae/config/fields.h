#pragma once

#include "mlomae/config/settings.h"

#include <string>
#include <variant>
#include <vector>

namespace mlomae {

/// A setting as the outside knows it.
struct Field {
  std::string key;  ///< "section.name"
  /// into the Settings it was listed for
  std::variant<bool*, int64_t*, double*, std::string*> value;
  std::string about;                      ///< one line for people
  std::vector<std::string> choices = {};  ///< of a text; empty: any
};

/// Every field of the settings, section by section. The pointers are good as long as `settings`
/// stays where it is.
std::vector<Field> fields(Settings& settings);

/// A number for a message: the fewest digits that are read back as the same one.
std::string number(double value);

}  // namespace mlomae
