#pragma once

#include "mlomae/training/pretraining.h"

#include <mlo/engine.h>
#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <functional>
#include <string>

namespace mlomae {

/// What `pretrain` leaves behind, by name.
struct RunDirectory {
  std::filesystem::path path;
  std::filesystem::path config() const { return path / "config.json"; }  ///< the settings
  std::filesystem::path record() const {
    return path / "run.json";
  }  ///< what it was, where and how long
  std::filesystem::path log() const { return path / "log.jsonl"; }
  std::filesystem::path tensorboard() const { return path / "tensorboard"; }
  std::filesystem::path checkpoint() const { return path / "checkpoint.mlo"; }
  std::filesystem::path masks() const { return path / "masks"; }  ///< snapshots
  std::filesystem::path model() const { return path / "mae.safetensors"; }
  std::filesystem::path encoder() const { return path / "encoder.safetensors"; }  ///< for timm
  std::filesystem::path masker() const { return path / "masker.safetensors"; }
  std::filesystem::path head() const { return path / "head.safetensors"; }

  /// Makes the directory, or takes one that is empty; returns whether it was made. Throws
  /// mlo::ConfigError for one that holds something else, or a run already.
  bool create() const;
  /// Of an earlier run. Throws mlo::ConfigError or mlo::Error naming the file.
  Settings settings() const;
  /// By the log, how long the steps after `after` up to `upto` took when they were taken last, in
  /// seconds: for a part of a run that was killed before it could write its record. To the last
  /// line that was logged of it. `bad` as in read_log.
  double logged_seconds(int64_t after, int64_t upto,
                        const std::function<void(const std::string&)>& bad) const;

  void write_settings(const Settings& settings) const;
  void write_record(const nlohmann::ordered_json& record) const;
  void write_models(const Models& models) const;
  /// Throws mlo::ConfigError for a run that has no weights yet.
  void check_weights() const;
  /// Of a finished (or stopped) run, for its data.
  Models read_models(const Settings& settings, const Dataset& dataset) const;
};

/// {"mlo", "libtorch", "compiler"}
nlohmann::ordered_json versions();
/// As the system calls it, and how this process was called; empty if it does not say.
std::string processor();
std::string command_line();
/// Most memory that this process has had, in MiB.
double peak_mib();

}  // namespace mlomae
