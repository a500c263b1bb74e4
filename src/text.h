#pragma once

#include "mlo/error.h"

// Compiled in, so that neither libmlo nor its users need the library. The formatting itself is
// compiled once, in text.cpp.
#ifndef FMT_HEADER_ONLY
#define FMT_HEADER_ONLY
#endif
// fmt's own prints and ends the process.
#define FMT_ASSERT(condition, message) static_cast<void>(0)
#include <fmt/core.h>

#include <string>
#include <utility>
#include <vector>

namespace mlo {

std::string vmessage(fmt::string_view format, fmt::format_args values);

/// The text for people that fmt's `format` makes of `values`: checked against them when compiled,
/// numbers as the shortest text that reads back as the same number, unless it says how many digits.
template <class... Values>
std::string message(fmt::format_string<Values...> format, Values&&... values) {
  return vmessage(format, fmt::make_format_args(values...));
}

/// Throws a Failure that says so. In the words that all messages keep to:
/// "Struct::field = value; it must be …", or "level 'name': what is wrong; the cure".
template <class Failure, class... Values>
[[noreturn]] void refuse(fmt::format_string<Values...> format, Values&&... values) {
  throw Failure(vmessage(format, fmt::make_format_args(values...)));
}

/// Refuses unless `holds`.
template <class Failure = ConfigError, class... Values>
void require(bool holds, fmt::format_string<Values...> format, Values&&... values) {
  if (!holds) throw Failure(vmessage(format, fmt::make_format_args(values...)));
}

/// 'name'
std::string quoted(const std::string& name);
inline std::string quoted(std::string& name) {
  return quoted(std::as_const(name));
}  // not std::quoted

/// "'a', 'b'", or "none".
std::string listed(const std::vector<std::string>& names);

/// The same of what `name` gives of each item.
template <class Items, class Name>
std::string listed(const Items& items, const Name& name) {
  std::vector<std::string> names;
  for (const auto& item : items) names.push_back(std::string(name(item)));
  return listed(names);
}

}  // namespace mlo
