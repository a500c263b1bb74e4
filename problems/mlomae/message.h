#pragma once

#include <mlo/error.h>

// Compiled in, so that no user needs the library. The formatting itself is compiled once, in
// message.cpp.
#ifndef FMT_HEADER_ONLY
#define FMT_HEADER_ONLY
#endif
// fmt's own prints and ends the process.
#define FMT_ASSERT(condition, message) static_cast<void>(0)
#include <fmt/core.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace mlomae {

std::string vmessage(fmt::string_view format, fmt::format_args values);

/// The text for people that fmt's `format` makes of `values`: checked against them when compiled,
/// numbers as the shortest text that reads back as the same number, unless it says how many digits.
template <class... Values>
std::string message(fmt::format_string<Values...> format, Values&&... values) {
  return vmessage(format, fmt::make_format_args(values...));
}

/// Throws a Failure that says so: "section.name = value; it must be …", "path: what is wrong; the
/// cure".
template <class Failure = mlo::ConfigError, class... Values>
[[noreturn]] void refuse(fmt::format_string<Values...> format, Values&&... values) {
  throw Failure(vmessage(format, fmt::make_format_args(values...)));
}

/// Refuses unless `holds`.
template <class Failure = mlo::ConfigError, class... Values>
void require(bool holds, fmt::format_string<Values...> format, Values&&... values) {
  if (!holds) throw Failure(vmessage(format, fmt::make_format_args(values...)));
}

/// Writes it as a line.
template <class... Values>
void print(std::FILE* file, fmt::format_string<Values...> format, Values&&... values) {
  const std::string line = vmessage(format, fmt::make_format_args(values...)) + "\n";
  std::fwrite(line.data(), 1, line.size(), file);
}

/// 'name'
std::string quoted(const std::string& name);

/// "'a', 'b'", or "none".
std::string listed(const std::vector<std::string>& names);

/// "[2, 3]"
std::string shape_text(const std::vector<int64_t>& sizes);

}  // namespace mlomae
