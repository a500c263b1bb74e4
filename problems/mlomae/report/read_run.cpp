#include "mlomae/report/read_run.h"

#include "mlomae/config/json_text.h"
#include "mlomae/report/log.h"

#include <mlo/error.h>

#include <algorithm>
#include <initializer_list>
#include <set>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kCure =
    "it is damaged, or no file of a run: give a directory that `mlomae pretrain` has made";

Json object_of(const std::filesystem::path& file) {
  Json json = read_json(file, kCure);
  if (!json.is_object())
    throw mlo::Error(file.string() + ": not a JSON object; it is damaged, or no file of a run");
  return json;
}

// A run that has gone on, or was trained anew in the same place, has scores of what its encoder
// was.
void take_scores(Run& run) {
  const std::string encoder = run.info.value("encoder", "");
  std::set<std::string> older;
  for (Score& score : read_scores(run.path)) {
    if (score.encoder.empty() || encoder.empty() || score.encoder == encoder)
      run.scores.push_back(std::move(score));
    else
      older.insert(score.kind);
  }
  for (const std::string& kind : older)
    run.notes.push_back(run.path.string() + ": the scores of " + kind +
                        " are of an encoder that the run no longer has, and left out; make them "
                        "anew: mlomae evaluate " +
                        kind + " " + run.path.string());
}

}  // namespace

Json read_record(const std::filesystem::path& run) {
  const std::filesystem::path file = run / "run.json";
  Json json = object_of(file);
  const auto check = [&](std::initializer_list<const char*> keys, bool (*right)(const Json&),
                         const char* expected) {
    for (const char* key : keys)
      if (json.contains(key) && !right(json[key]))
        throw mlo::Error(file.string() + ": " + key + " = " + abridged(json_text(json[key])) +
                         ": expected " + expected + "; the file is damaged: restore it");
  };
  check(
      {"name", "method", "preset", "data", "processor", "command", "device", "started", "finished",
       "reason", "encoder"},
      [](const Json& value) { return value.is_string(); }, "text");
  check(
      {"seconds", "images_per_second", "peak_mib"},
      [](const Json& value) { return value.is_number() || value.is_null(); }, "a number");
  check(
      {"steps", "reconstruction_steps", "steps_taken", "threads"},
      [](const Json& value) { return value.is_number_integer() && value.get<int64_t>() >= 0; },
      "a whole number");
  check(
      {"versions"}, [](const Json& value) { return value.is_object(); }, "an object");
  check(
      {"resumed"}, [](const Json& value) { return value.is_array(); }, "a list");
  for (const char* key : {"seconds", "images_per_second", "peak_mib"})
    if (json.contains(key) && json[key].is_null()) json.erase(key);
  return json;
}

Run read_run(const std::filesystem::path& path) {
  Run run;
  run.path = path;
  run.info = read_record(path);
  run.config = object_of(path / "config.json");
  const auto steps = run.info.value("steps", int64_t{0}),
             reconstruction_steps = run.info.value("reconstruction_steps", int64_t{0});
  const int64_t each = steps > 0 ? std::max<int64_t>(1, reconstruction_steps / steps) : 1;

  const BrokenLines broken = read_log(
      path / "log.jsonl",
      [&](const LogEntry& entry) {
        const auto take = [&](const auto& numbers, const std::string& prefix) {
          for (const auto& [name, value] : numbers)
            run.series[prefix + name][entry.step * each] = value;
        };
        if (entry.event == "step") take(entry.losses, "loss/"), take(entry.metrics, "");
        if (entry.event == "validation") take(entry.metrics, "validation/");
      },
      [](const std::string& bad) { throw mlo::Error(bad); });
  if (broken.count > 0)
    run.notes.push_back((path / "log.jsonl").string() + ": " + std::to_string(broken.count) +
                        (broken.count == 1 ? " line is" : " lines are") +
                        " no JSON and left out, the first is line " + std::to_string(broken.first) +
                        "; the file is damaged: restore it");
  take_scores(run);
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(path / "masks", none))
    if (entry.path().extension() == ".mlo") run.snapshots.push_back(entry.path());
  std::sort(run.snapshots.begin(), run.snapshots.end());
  return run;
}

std::vector<Run> read_runs(const std::vector<std::filesystem::path>& paths) {
  std::vector<Run> runs;
  std::map<std::filesystem::path, std::size_t> known;
  for (const auto& path : paths) {
    std::error_code error;
    const std::filesystem::path place = std::filesystem::weakly_canonical(path, error);
    const auto [same, is_new] = known.emplace(error ? path : place, runs.size());
    if (is_new)
      runs.push_back(read_run(path));
    else
      runs[same->second].notes.push_back(path.string() + " is the same run as " +
                                         runs[same->second].path.string() + ", and counted once");
  }
  return runs;
}

}  // namespace mlomae
