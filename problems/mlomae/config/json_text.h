#pragma once

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <string>

namespace mlomae {

/// Settings and records are small and shallow. Throws mlo::ConfigError, which begins with `origin`,
/// for text that is no JSON, that nests deeper than 64 levels, that has more than 10,000 names, or
/// one of them twice in an object.
nlohmann::ordered_json parse_json(const std::string& text, const std::string& origin);

/// The same of a regular file, of up to 16 MiB. Throws mlo::ConfigError also for one that cannot be
/// read; `cure` says what to do then.
nlohmann::ordered_json read_json(const std::filesystem::path& file, const std::string& cure);

/// Throws mlo::ConfigError for what is there and no regular file: a pipe may block for ever, and a
/// device never end.
void check_regular(const std::filesystem::path& file, const std::string& cure);

/// What was given, for a message: at most some `most` bytes of it, beginning and end.
std::string abridged(const std::string& text, std::size_t most = 80);

/// On one line (`indent` −1) or indented. Bytes that are not UTF-8, which names of files may have,
/// become U+FFFD.
std::string json_text(const nlohmann::ordered_json& json, int indent = -1);

}  // namespace mlomae
