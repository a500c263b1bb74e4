#include "mlomae/run/run_directory.h"

#include "mlomae/config/json.h"
#include "mlomae/config/json_text.h"
#include "mlomae/message.h"
#include "mlomae/models/weights.h"
#include "mlomae/run/log.h"

#include <mlo/io/checkpoint.h>
#include <mlo/io/file_sink.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

void write_text(const std::filesystem::path& file, const std::string& text) {
  const auto sink = mlo::atomic_file(file);
  sink->write(text.data(), text.size());
  sink->commit();
}

// Sorted by name; none without the folder.
std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder,
                                            const char* extension) {
  std::vector<std::filesystem::path> files;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none))
    if (entry.path().extension() == extension) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

bool RunDirectory::create() const {
  std::error_code error;
  if (std::filesystem::exists(config()) || std::filesystem::exists(checkpoint()))
    refuse("{} holds a run already; go on with it (--resume), give another --out, or remove it",
           path.string());
  if (std::filesystem::exists(path)) {
    const auto entries = std::filesystem::directory_iterator(path, error);
    const bool holds_only_lock =
        !error &&
        std::all_of(begin(entries), end(entries), [&](const std::filesystem::directory_entry& e) {
          return e.path() == lock();  // what a killed process has left of it
        });
    require(holds_only_lock, "{} is not an empty directory; give another --out", path.string());
    return false;
  }
  std::filesystem::create_directories(path, error);
  require(!error, "{} cannot be made: {}; give another --out", path.string(), error.message());
  return true;
}

void RunDirectory::check_is_run() const {
  require(std::filesystem::exists(config()),
          "{} is no run: there is no config.json; give a directory that `mlomae pretrain` has made",
          path.string());
}

Settings RunDirectory::settings() const {
  check_is_run();
  Settings settings;
  apply_file(settings, config());
  settings.validate();
  return settings;
}

double RunDirectory::logged_seconds(int64_t after, int64_t upto,
                                    const std::function<void(const std::string&)>& bad) const {
  double seconds = 0.0;
  read_log(
      log(),
      [&](const LogEntry& entry) {
        if (entry.event == "step" && entry.step > after && entry.step <= upto)
          seconds = entry.seconds;
      },
      bad);
  return seconds;
}

std::filesystem::path RunDirectory::snapshot(int64_t step) const {
  return masks() / message("{:08}.mlo", step);
}

std::vector<std::filesystem::path> RunDirectory::snapshots() const {
  return files_in(masks(), ".mlo");
}

std::vector<std::filesystem::path> RunDirectory::scores() const {
  return files_in(evaluation(), ".json");
}

void RunDirectory::write_settings(const Settings& settings) const {
  write_text(config(), json_text(to_json(settings), 2) + "\n");
}

void RunDirectory::write_record(const Json& json) const {
  write_text(record(), json_text(json, 2) + "\n");
}

void RunDirectory::write_models(const Models& models) const {
  export_model(model(), models.mae);
  export_encoder(encoder(), models.mae);
  if (models.masker) export_module(masker(), *models.masker);
  if (models.head) export_module(head(), *models.head);
}

void RunDirectory::check_weights() const {
  check_is_run();
  require(std::filesystem::exists(model()),
          "{0} has no weights yet (mae.safetensors): the run was cut off; finish it with mlomae "
          "pretrain --out {0} --resume",
          path.string());
}

Models RunDirectory::read_models(Models models) const {
  check_weights();
  import_weights(model(), models.mae);
  if (models.masker) import_module(masker(), *models.masker);
  if (models.head) import_module(head(), *models.head);
  return models;
}

}  // namespace mlomae
