#include "mlomae/run/log.h"

#include "mlomae/config/json_text.h"

#include "mlomae/message.h"

#include <nlohmann/json.hpp>

#include <fstream>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostSteps = 1'000'000'000'000;  // products with it stay within int64_t

std::vector<std::pair<std::string, double>> numbers(const Json& entry, const char* part) {
  std::vector<std::pair<std::string, double>> found;
  if (!entry.contains(part)) return found;
  require<mlo::Error>(entry[part].is_object(), "{} is no object", part);
  for (const auto& [name, value] : entry[part].items())
    if (value.is_number()) found.emplace_back(name, value.get<double>());
  return found;
}

LogEntry entry_of(const Json& json) {
  require<mlo::Error>(json.is_object(), "no JSON object");
  LogEntry entry;
  if (json.contains("event")) {
    require<mlo::Error>(json["event"].is_string(), "event is no text");
    entry.event = json["event"].get<std::string>();
  }
  if (json.contains("step")) {
    const Json& step = json["step"];
    if (!step.is_number_integer() || step.get<int64_t>() < 0 || step.get<int64_t>() > kMostSteps)
      refuse<mlo::Error>("step is no number of steps");
    entry.step = step.get<int64_t>();
  }
  if (json.contains("seconds") && !json["seconds"].is_null()) {
    require<mlo::Error>(json["seconds"].is_number(), "seconds is no number");
    entry.seconds = json["seconds"].get<double>();
  }
  entry.losses = numbers(json, "losses");
  entry.metrics = numbers(json, "metrics");
  return entry;
}

}  // namespace

BrokenLines read_log(const std::filesystem::path& file,
                     const std::function<void(const LogEntry&)>& use,
                     const std::function<void(const std::string&)>& bad) {
  check_regular(file, "remove it");
  std::ifstream in(file);
  BrokenLines broken;
  int64_t number = 0, torn = 0;  // torn: the number of the last line, if it is no JSON
  for (std::string line; std::getline(in, line);) {
    const std::string place = message("{}, line {}", file.string(), ++number);
    const bool whole = Json::accept(line);
    bool starts = false;
    if (whole) {
      try {
        const LogEntry entry = entry_of(parse_json(line, place));
        starts = entry.event == "start";
        use(entry);
      } catch (const mlo::Error& error) {
        const std::string what = error.what();
        bad(message("{}{}; remove the line", what.starts_with(place) ? "" : place + ": ", what));
      }
    }
    if (torn > 0 && !starts && ++broken.count == 1) broken.first = torn;
    torn = whole || line.empty() ? 0 : number;
  }
  return broken;
}

}  // namespace mlomae
