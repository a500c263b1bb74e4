#pragma once

#include "mlomae/config/settings.h"
#include "mlomae/models/models.h"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace mlomae {

/// What a run leaves behind, by name.
struct RunDirectory {
  std::filesystem::path path;
  std::filesystem::path config() const { return path / "config.json"; }  ///< the settings
  /// what it was, where and how long
  std::filesystem::path record() const { return path / "run.json"; }
  std::filesystem::path log() const { return path / "log.jsonl"; }
  std::filesystem::path tensorboard() const { return path / "tensorboard"; }
  std::filesystem::path checkpoint() const { return path / "checkpoint.mlo"; }
  std::filesystem::path lock() const { return path / "lock"; }
  std::filesystem::path masks() const { return path / "masks"; }
  /// After so many reconstruction steps; and those there are, oldest first.
  std::filesystem::path snapshot(int64_t step) const;
  std::vector<std::filesystem::path> snapshots() const;
  std::filesystem::path evaluation() const { return path / "evaluation"; }
  /// The scores of a kind of evaluation, and what it trained to predict by; and the scores there
  /// are, by name.
  std::filesystem::path score(const std::string& kind) const {
    return evaluation() / (kind + ".json");
  }
  std::filesystem::path predictor(const std::string& kind) const {
    return evaluation() / (kind + ".safetensors");
  }
  std::vector<std::filesystem::path> scores() const;
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
  /// Throws mlo::ConfigError for a directory that is no run's.
  void check_is_run() const;
  /// The same for a run that has no weights yet.
  void check_weights() const;
  /// The weights of a finished (or stopped) run, in models that were made for it.
  Models read_models(Models models) const;
};

}  // namespace mlomae
