#pragma once

#include <array>
#include <charconv>
#include <string>

namespace mlo {

/// The shortest text that reads back as the same number, for messages: a field of -1e-12 is not
/// said to be -0.000000.
inline std::string number(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

/// A few digits of it, for tables and reports: 0.0123, 1.2e-07.
inline std::string brief(double value, int digits) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value,
                                 std::chars_format::general, digits);
  return {text.data(), end.ptr};
}

}  // namespace mlo
