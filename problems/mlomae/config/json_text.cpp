#include "mlomae/config/json_text.h"

#include "mlomae/message.h"

#include <nlohmann/json.hpp>

#include <cerrno>
#include <fstream>
#include <set>
#include <system_error>
#include <vector>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kDeepest = 64;  // copying and writing JSON are recursive in nlohmann's library …
constexpr int64_t kMostNames = 10'000;  // … and the time that an ordered object takes is quadratic
constexpr std::size_t kMostBytes = 16U << 20;

}  // namespace

Json parse_json(const std::string& text, const std::string& origin) {
  int64_t names = 0;
  std::vector<std::set<std::string>> open;  // the names so far of each object that is being read
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    require(depth <= kDeepest, "{}: nested deeper than {} levels; nothing of this program is",
            origin, kDeepest);
    if (event == Json::parse_event_t::key && ++names > kMostNames)
      refuse("{}: more than {} names; nothing of this program has so many", origin, kMostNames);
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    // The library would keep the last one, and nobody could say which was meant.
    if (event == Json::parse_event_t::key && !open.back().insert(parsed.get<std::string>()).second)
      refuse("{}: '{}' is there twice in one object; remove one of them", origin,
             abridged(parsed.get<std::string>()));
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const nlohmann::json::exception& error) {
    const std::string what = error.what();
    const std::size_t tag = what.find("] ");  // "[json.exception.parse_error.101] "
    refuse("{}: not JSON: {}", origin,
           abridged(tag == std::string::npos ? what : what.substr(tag + 2), 300));
  }
}

void check_regular(const std::filesystem::path& file, const std::string& cure) {
  std::error_code unknown;
  const std::filesystem::file_type type = std::filesystem::status(file, unknown).type();
  const auto fail = [&](const char* kind) {
    refuse("{} is not a file but {}; {}", file.string(), kind, cure);
  };
  if (type == std::filesystem::file_type::fifo) fail("a pipe");
  if (type == std::filesystem::file_type::socket) fail("a socket");
  if (type == std::filesystem::file_type::character || type == std::filesystem::file_type::block)
    fail("a device");
}

std::string abridged(const std::string& text, std::size_t most) {
  constexpr const char* kGap = " … ";
  if (text.size() <= most) return text;
  std::size_t head = 2 * most / 3, tail = text.size() - (most - head);
  const auto inside = [&](std::size_t at) {
    return (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U;
  };  // of a letter
  for (int i = 0; i < 3 && inside(head); ++i) --head;
  for (int i = 0; i < 3 && inside(tail); ++i) ++tail;
  return text.substr(0, head) + kGap + text.substr(tail);
}

Json read_json(const std::filesystem::path& file, const std::string& cure) {
  std::error_code error;
  require(!std::filesystem::is_directory(file, error), "{} is a folder; {}", file.string(), cure);
  check_regular(file, cure);
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in)
    refuse("{}: cannot be read: {}; {}", file.string(), std::generic_category().message(errno),
           cure);
  std::string text(kMostBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  require(text.size() <= kMostBytes, "{}: larger than 16 MiB; {}", file.string(), cure);
  try {
    return parse_json(text, file.string());
  } catch (const mlo::ConfigError& wrong) {
    refuse("{}; {}", wrong.what(), cure);
  }
}

std::string json_text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace mlomae
