#include "mlomae/program/choices.h"

#include "mlomae/config/json.h"
#include "mlomae/config/json_text.h"
#include "mlomae/config/methods.h"
#include "mlomae/config/presets.h"
#include "mlomae/message.h"

#include <ATen/ATen.h>
#include <torch/cuda.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>

namespace mlomae {

void SettingChoices::add_to(CLI::App& command, bool with_method) {
  std::string names;
  for (const Preset& p : presets()) names += "\n  " + p.name + ": " + p.about;
  command.add_option("--preset", preset, "settings to start from:" + names);
  command.add_option("--config", files,
                     "JSON file of settings (any of them; `mlomae config` prints all); may be "
                     "given several times");
  command.add_option("--set", assignments,
                     "one setting, as section.name=value; may be given several times");
  command.add_option("--data", data, "folder with the images (data.path)");
  if (with_method)
    command.add_option("--method", method, "run.method: one of " + listed(method_names()));
  command.add_option("--seed", seed, "run.seed");
  command.add_option("--threads", threads, "run.threads");
  command.add_option("--device", device, "cpu, cuda or cuda:N (run.device)");
}

bool SettingChoices::any() const {
  return !preset.empty() || !method.empty() || !data.empty() || !device.empty() || !files.empty() ||
         !assignments.empty() || !seed.empty() || !threads.empty();
}

Settings SettingChoices::settings(const Settings& fallback) const {
  Settings s = preset.empty() ? fallback : mlomae::preset(preset);
  for (const auto& file : files) apply_file(s, file);
  if (!method.empty()) apply_assignment(s, "run.method=" + method, "");
  if (!data.empty()) s.data.path = data;
  if (!device.empty()) s.run.device = device;
  if (!seed.empty()) apply_assignment(s, "run.seed=" + seed, "");
  if (!threads.empty()) apply_assignment(s, "run.threads=" + threads, "");
  for (const std::string& assignment : assignments) apply_assignment(s, assignment);
  s.make_absolute();
  s.validate();
  return s;
}

Dataset opened(const Settings& settings) {
  Dataset dataset = open_dataset(settings);
  for (const std::string& notice : dataset.notices) print(stderr, "note: {}", notice);
  return dataset;
}

void prepare(const Settings& settings) {
  if (settings.run.threads > 0) at::set_num_threads(static_cast<int>(settings.run.threads));
  try {
    const at::Device device(settings.run.device);
    if (device.is_cpu()) return;
    if (device.is_cuda() && torch::cuda::is_available() &&
        device.index() < static_cast<int>(torch::cuda::device_count()))
      return;
  } catch (const c10::Error&) {
  }
  refuse("run.device = '{}'; it must be cpu{}", abridged(settings.run.device),
         torch::cuda::is_available()
             ? message(", cuda or cuda:0 to cuda:{}", torch::cuda::device_count() - 1)
             : "; no CUDA device can be used here");
}

}  // namespace mlomae
