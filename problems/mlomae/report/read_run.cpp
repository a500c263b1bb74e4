#include "mlomae/report/read_run.h"

#include <mlo/error.h>

#include <algorithm>
#include <fstream>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

Json object_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  if (!in) throw mlo::Error(file.string() + " cannot be read; give a directory that `mlomae pretrain` has made");
  Json json = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw mlo::Error(file.string() + ": not a JSON object; it is damaged, or no file of a run");
  return json;
}

}  // namespace

Run read_run(const std::filesystem::path& path) {
  Run run;
  run.path = path;
  run.info = object_of(path / "run.json");
  run.config = object_of(path / "config.json");
  const auto steps = run.info.value("steps", int64_t{0}),
             reconstruction_steps = run.info.value("reconstruction_steps", int64_t{0});
  const int64_t each = steps > 0 ? std::max<int64_t>(1, reconstruction_steps / steps) : 1;

  std::ifstream log(path / "log.jsonl");
  for (std::string line; std::getline(log, line);) {
    const Json entry = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!entry.is_object() || !entry.contains("step")) continue;  // half a line of a killed run
    const std::string event = entry.value("event", "");
    const int64_t step = entry["step"].get<int64_t>() * each;
    const auto take = [&](const char* part, const std::string& prefix) {
      if (!entry.contains(part)) return;
      for (const auto& [name, value] : entry[part].items())
        if (value.is_number()) run.series[prefix + name][step] = value.get<double>();
    };
    if (event == "step") take("losses", "loss/"), take("metrics", "");
    if (event == "validation") take("metrics", "validation/");
  }
  run.scores = read_scores(path);
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(path / "masks", none))
    if (entry.path().extension() == ".mlo") run.snapshots.push_back(entry.path());
  std::sort(run.snapshots.begin(), run.snapshots.end());
  return run;
}

}  // namespace mlomae
