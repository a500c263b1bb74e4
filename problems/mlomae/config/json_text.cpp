#include "mlomae/config/json_text.h"

#include <mlo/error.h>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <fstream>
#include <system_error>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kDeepest = 64;  // copying and writing JSON are recursive in nlohmann's library …
constexpr int64_t kMostNames = 10'000;  // … and the time that an ordered object takes is quadratic
constexpr std::size_t kMostBytes = 16U << 20;

}  // namespace

Json parse_json(const std::string& text, const std::string& origin) {
  int64_t names = 0;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& /*parsed*/) {
    if (depth > kDeepest)
      throw mlo::ConfigError(origin + ": nested deeper than " + std::to_string(kDeepest) +
                             " levels; nothing of this program is");
    if (event == Json::parse_event_t::key && ++names > kMostNames)
      throw mlo::ConfigError(origin + ": more than " + std::to_string(kMostNames) +
                             " names; nothing of this program has so many");
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const nlohmann::json::exception& error) {
    const std::string what = error.what();
    const std::size_t tag = what.find("] ");  // "[json.exception.parse_error.101] "
    throw mlo::ConfigError(
        origin + ": not JSON: " + (tag == std::string::npos ? what : what.substr(tag + 2)));
  }
}

Json read_json(const std::filesystem::path& file, const std::string& cure) {
  std::error_code error;
  if (std::filesystem::is_directory(file, error))
    throw mlo::ConfigError(file.string() + " is a folder; " + cure);
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in)
    throw mlo::ConfigError(file.string() + ": cannot be read: " +
                           std::generic_category().message(errno) + "; " + cure);
  std::string text(kMostBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > kMostBytes)
    throw mlo::ConfigError(file.string() + ": larger than 16 MiB; " + cure);
  try {
    return parse_json(text, file.string());
  } catch (const mlo::ConfigError& wrong) {
    throw mlo::ConfigError(std::string(wrong.what()) + "; " + cure);
  }
}

std::string json_text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace mlomae
