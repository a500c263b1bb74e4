#pragma once

#include <charconv>
#include <string>

namespace mlo {

/// The shortest text that reads back as the same number, for messages: a field of -1e-12 is not
/// said to be -0.000000.
inline std::string number(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

}  // namespace mlo
