#include "io/json.h"

#include "text.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <vector>

namespace mlo {
namespace {

using Json = nlohmann::json;

constexpr int64_t kDeepest = 64;

int64_t depth_of(std::string_view text) {
  int64_t depth = 0, deepest = 0;
  bool in_text = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_text && c == '\\') {
      ++i;
    } else if (c == '"') {
      in_text = !in_text;
    } else if (!in_text && (c == '[' || c == '{')) {
      deepest = std::max(deepest, ++depth);
    } else if (!in_text && (c == ']' || c == '}')) {
      --depth;
    }
  }
  return deepest;
}

// Of equal keys the parser would keep one. Its own callback could see them, but takes quadratic
// time.
class KeyCheck final : public nlohmann::json_sax<Json> {
 public:
  bool start_object(std::size_t /*elements*/) override { return seen_.emplace_back(), true; }
  bool end_object() override { return seen_.pop_back(), true; }
  bool key(std::string& name) override {
    if (!seen_.back().insert(name).second) refuse<Error>("names {} twice", quoted(excerpt(name)));
    return true;
  }
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    refuse<Error>("is no JSON ({})", excerpt(error.what()));
  }
  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(number_integer_t /*value*/) override { return true; }
  bool number_unsigned(number_unsigned_t /*value*/) override { return true; }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { return true; }
  bool string(std::string& /*value*/) override { return true; }
  bool binary(binary_t& /*value*/) override { return true; }
  bool start_array(std::size_t /*elements*/) override { return true; }
  bool end_array() override { return true; }

 private:
  std::vector<std::set<std::string>> seen_;  // of the objects around this place
};

}  // namespace

Json parsed_json(const std::string& text) {
  if (const int64_t depth = depth_of(text); depth > kDeepest)
    refuse<Error>("nests arrays and objects {} deep, expected at most {}", depth, kDeepest);
  KeyCheck check;
  Json::sax_parse(text, &check);
  return Json::parse(text);
}

std::string excerpt(const std::string& text) {
  constexpr std::size_t kLongest = 200;
  if (text.size() <= kLongest) return text;
  std::size_t end = kLongest;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
    --end;  // not within a character of UTF-8
  return text.substr(0, end) + "…";
}

}  // namespace mlo
