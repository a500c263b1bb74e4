#include "mlomae/message.h"

#include <fmt/format.h>

namespace mlomae {

std::string vmessage(fmt::string_view format, fmt::format_args values) {
  return fmt::vformat(format, values);
}

std::string quoted(const std::string& name) { return message("'{}'", name); }

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text.append(text.empty() ? "" : ", ").append(quoted(name));
  return text.empty() ? "none" : text;
}

std::string shape_text(const std::vector<int64_t>& sizes) {
  return fmt::format("[{}]", fmt::join(sizes, ", "));
}

}  // namespace mlomae
