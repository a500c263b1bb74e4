#pragma once

#include "mlomae/config/settings.h"
#include "mlomae/data/dataset.h"

#include <filesystem>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace mlomae {

/// The options by which a command's settings are chosen: --preset, --config, --set, and short forms
/// of a few.
struct SettingChoices {
  std::string preset, method, data, device;
  std::vector<std::filesystem::path> files;
  std::vector<std::string> assignments;
  std::string seed, threads;  // as given: a number too large is refused, not cut

  void add_to(CLI::App& command, bool with_method);
  bool any() const;
  /// The preset (the one given, else `fallback`), then the files, the short forms and the
  /// assignments, in this order; validated.
  Settings settings(const Settings& fallback) const;
};

/// open_dataset, and what it has to say on stderr.
Dataset opened(const Settings& settings);

/// Threads and device as the settings say. Throws mlo::ConfigError for a CUDA device that is not
/// there.
void prepare(const Settings& settings);

}  // namespace mlomae
