#include "mlomae/training/describe.h"

#include "mlomae/run/record.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <ctime>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

std::string now() {
  const std::time_t time = std::time(nullptr);
  std::tm utc = {};
  ::gmtime_r(&time, &utc);
  std::array<char, 32> text = {};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text.data();
}

int64_t count(const torch::nn::Module& module) {
  int64_t n = 0;
  for (const at::Tensor& p : module.parameters())
    if (p.requires_grad()) n += p.numel();
  return n;
}

}  // namespace

Json parameter_counts(const Models& models) {
  Json json = {{"pretrain", count(*models.mae)}};
  if (models.head) json["head"] = count(*models.head);
  if (models.masker) json["masker"] = count(*models.masker);
  return json;
}

Json described(const RunDirectory& directory, const std::string& preset, const Settings& settings,
               const Dataset& dataset, const Models& models) {
  const Length length = run_length(settings, dataset);
  return {{"name", folder_name(directory.path)},
          {"method", settings.run.method},
          {"preset", preset},
          {"data", dataset.name},
          {"seed", settings.run.seed},
          {"versions", versions()},
          {"processor", processor()},
          {"command", command_line()},
          {"device", settings.run.device},
          {"threads", at::get_num_threads()},
          {"started", now()},
          {"steps", length.steps()},
          {"reconstruction_steps", length.reconstruction_steps},
          {"images",
           {{"pretrain", dataset.pretrain.size()},
            {"head", dataset.head.size()},
            {"held_out", dataset.held_out.size()},
            {"test", dataset.test ? dataset.test->size() : 0}}},
          {"image_size", dataset.image_size},
          {"channels", dataset.train->channels()},
          {"classes", dataset.train->classes().size()},
          {"class_names", dataset.train->classes()},
          {"mean", dataset.mean},
          {"deviation", dataset.deviation},
          {"notices", dataset.notices},
          {"parameters", parameter_counts(models)},
          {"seconds", 0.0}};
}

Json described_anew(Json record, const Json& before, const RunDirectory& directory, int64_t taken,
                    const std::vector<std::string>& changed,
                    const std::function<void(const std::string&)>& bad) {
  Json part = {{"time", record["started"]},
               {"step", taken},
               {"command", record["command"]},
               {"changed", changed}};
  for (const char* key : {"name", "preset", "command", "started", "encoder"})
    if (before.contains(key)) record[key] = before[key];
  // A part that was killed has left its time in the log only.
  record["seconds"] = before.value("seconds", 0.0) +
                      directory.logged_seconds(before.value("steps_taken", int64_t{0}), taken, bad);
  record["steps_taken"] = taken;
  record["resumed"] = before.value("resumed", Json::array());
  record["resumed"].push_back(std::move(part));
  return record;
}

void describe_end(Json& record, const Json& earlier, const mlo::RunSummary& summary, int64_t steps,
                  int64_t images_per_step) {
  record["finished"] = now();
  record["reason"] = mlo::to_string(summary.reason);
  record["steps_taken"] = summary.steps;
  record["seconds"] = record.value("seconds", 0.0) + summary.seconds;
  // A run that was finished already keeps its figures.
  const auto kept = [&](const char* key, double measured) {
    record[key] = steps == 0 && earlier.contains("images_per_second") && earlier.contains(key)
                      ? earlier[key].get<double>()
                      : measured;
  };
  kept("images_per_second",
       static_cast<double>(steps * images_per_step) / std::max(summary.seconds, 1e-9));
  kept("peak_mib", peak_mib());
}

}  // namespace mlomae
