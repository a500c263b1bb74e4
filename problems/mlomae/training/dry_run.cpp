#include "mlomae/training/dry_run.h"

#include "mlomae/run/record.h"
#include "mlomae/training/describe.h"

#include <ATen/ATen.h>

#include <chrono>
#include <map>

namespace mlomae {

using Json = nlohmann::ordered_json;

Json dry_run(const Settings& settings, const Dataset& dataset) {
  const Models models = make_models(settings, dataset);
  const Length length = run_length(settings, dataset);
  const auto engine = make_engine(settings, dataset, models, {}, {.profile = true});
  engine->step();  // the first one also allocates
  std::map<std::string, mlo::Counters> before;
  for (const std::string& level : engine->level_names()) before[level] = engine->counters(level);
  const auto start = std::chrono::steady_clock::now();
  constexpr int kSteps = 2;
  for (int i = 0; i < kSteps; ++i) engine->step();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / kSteps;

  const Json counts = parameter_counts(models);
  Json levels = Json::object();
  for (const std::string& level : engine->level_names()) {
    const mlo::Counters &now = engine->counters(level), &then = before[level];
    levels[level] = {
        {"parameters", counts[level]},
        {"peak_mib", static_cast<double>(now.peak_bytes) / 1048576.0},
        {"seconds_per_step", (now.seconds - then.seconds) /
                                 static_cast<double>(std::max<int64_t>(1, now.steps - then.steps))},
        {"forwards_per_outer_step", (now.forwards - then.forwards) / kSteps},
        {"backwards_per_outer_step", (now.backwards - then.backwards) / kSteps}};
  }
  return {{"images", dataset.pretrain.size()},
          {"image_size", dataset.image_size},
          {"levels", levels},
          {"reconstruction_steps", length.reconstruction_steps},
          {"seconds_per_reconstruction_step", seconds / static_cast<double>(length.steps_each)},
          {"hours", seconds * static_cast<double>(length.steps()) / 3600.0},
          {"peak_mib", peak_mib()},
          {"threads", at::get_num_threads()}};
}

}  // namespace mlomae
