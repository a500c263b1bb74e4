#include "mlomae/report/read_run.h"

#include "mlomae/message.h"
#include "mlomae/run/log.h"
#include "mlomae/run/record.h"
#include "mlomae/run/run_directory.h"

#include <algorithm>
#include <set>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

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
    run.notes.push_back(message(
        "{0}: the scores of {1} are of an encoder that the run no longer has, and left out; make "
        "them anew: mlomae evaluate {1} {0}",
        run.path.string(), kind));
}

}  // namespace

Run read_run(const std::filesystem::path& path) {
  Run run;
  run.path = path;
  run.info = read_record(path);
  const RunDirectory directory{path};
  run.config = read_object(directory.config());
  const auto steps = run.info.value("steps", int64_t{0}),
             reconstruction_steps = run.info.value("reconstruction_steps", int64_t{0});
  const int64_t each = steps > 0 ? std::max<int64_t>(1, reconstruction_steps / steps) : 1;

  const BrokenLines broken = read_log(
      directory.log(),
      [&](const LogEntry& entry) {
        const auto take = [&](const auto& numbers, const std::string& prefix) {
          for (const auto& [name, value] : numbers)
            run.series[prefix + name][entry.step * each] = value;
        };
        if (entry.event == "step") take(entry.losses, "loss/"), take(entry.metrics, "");
        if (entry.event == "validation") take(entry.metrics, "validation/");
      },
      [](const std::string& bad) { refuse<mlo::Error>("{}", bad); });
  if (broken.count > 0)
    run.notes.push_back(message(
        "{}: {} no JSON and left out, the first is line {}; the file is damaged: restore it",
        directory.log().string(),
        broken.count == 1 ? "1 line is" : message("{} lines are", broken.count), broken.first));
  take_scores(run);
  run.snapshots = directory.snapshots();
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
      runs[same->second].notes.push_back(message("{} is the same run as {}, and counted once",
                                                 path.string(), runs[same->second].path.string()));
  }
  return runs;
}

}  // namespace mlomae
