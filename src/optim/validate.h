#pragma once

#include "mlo/error.h"

#include <sstream>
#include <string>

namespace mlo::detail {

/// ConfigError "field is value; it must be constraint" unless the condition holds.
template <class Value>
void require(bool condition, const char* field, const Value& value, const std::string& constraint) {
  if (!condition) {
    std::ostringstream message;
    message << field << " is " << value << "; it must be " << constraint;
    throw ConfigError(message.str());
  }
}

}  // namespace mlo::detail
