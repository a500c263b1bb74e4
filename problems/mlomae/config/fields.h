#pragma once

#include "mlomae/config/settings.h"

#include <limits>
#include <string>
#include <variant>
#include <vector>

namespace mlomae {

/// What a number may be: from `least` to `most`, without an end that is open.
struct Range {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool open_below = false, open_above = false;

  bool holds(double value) const;
  std::string text() const;  ///< "more than 0 and at most 1"
};

/// A setting as the outside knows it: all that is said of it.
struct Field {
  /// into the Settings it was listed for
  using Value = std::variant<bool*, int64_t*, double*, std::string*>;
  Field(std::string key, Value value, std::string about, Range range = {});
  Field(std::string key, Value value, std::string about, std::vector<std::string> choices);

  std::string key;  ///< "section.name"
  Value value;
  std::string about;                 ///< one line for people
  Range range;                       ///< of a number
  std::vector<std::string> choices;  ///< of a text; empty: any

  /// Throws mlo::ConfigError for a value that this does not allow.
  void check() const;
  /// The same for a text that is not one of the choices; `origin` begins the message.
  void check_choice(const std::string& text, const std::string& origin) const;
};

/// Every field of the settings, section by section. The pointers are good as long as `settings`
/// stays where it is.
std::vector<Field> fields(Settings& settings);

}  // namespace mlomae
