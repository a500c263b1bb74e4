#include "mlomae/run/log.h"

#include "mlomae/config/json_text.h"

#include <mlo/error.h>
#include <nlohmann/json.hpp>

#include <fstream>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostSteps = 1'000'000'000'000;  // products with it stay within int64_t

std::vector<std::pair<std::string, double>> numbers(const Json& entry, const char* part) {
  std::vector<std::pair<std::string, double>> found;
  if (!entry.contains(part)) return found;
  if (!entry[part].is_object()) throw mlo::Error(std::string(part) + " is no object");
  for (const auto& [name, value] : entry[part].items())
    if (value.is_number()) found.emplace_back(name, value.get<double>());
  return found;
}

LogEntry entry_of(const Json& json) {
  if (!json.is_object()) throw mlo::Error("no JSON object");
  LogEntry entry;
  if (json.contains("event")) {
    if (!json["event"].is_string()) throw mlo::Error("event is no text");
    entry.event = json["event"].get<std::string>();
  }
  if (json.contains("step")) {
    const Json& step = json["step"];
    if (!step.is_number_integer() || step.get<int64_t>() < 0 || step.get<int64_t>() > kMostSteps)
      throw mlo::Error("step is no number of steps");
    entry.step = step.get<int64_t>();
  }
  if (json.contains("seconds") && !json["seconds"].is_null()) {
    if (!json["seconds"].is_number()) throw mlo::Error("seconds is no number");
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
    const std::string place = file.string() + ", line " + std::to_string(++number);
    const bool whole = Json::accept(line);
    bool starts = false;
    if (whole) {
      try {
        const LogEntry entry = entry_of(parse_json(line, place));
        starts = entry.event == "start";
        use(entry);
      } catch (const mlo::Error& error) {
        const std::string what = error.what();
        bad((what.starts_with(place) ? what : place + ": " + what) + "; remove the line");
      }
    }
    if (torn > 0 && !starts && ++broken.count == 1) broken.first = torn;
    torn = whole || line.empty() ? 0 : number;
  }
  return broken;
}

}  // namespace mlomae
