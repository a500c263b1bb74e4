#pragma once

#include "mlomae/run/run_directory.h"

#include <filesystem>
#include <optional>

namespace mlomae {

/// One process a run: holds the file `lock` in `folder` (flock; the process's number is in it)
/// until it is destroyed, which removes it. A killed process holds nothing.
class RunLock {
 public:
  /// Throws mlo::ConfigError naming the process that has it, or why the folder cannot be written.
  explicit RunLock(const std::filesystem::path& folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  const std::filesystem::path file_;
  int descriptor_ = -1;
};

/// A directory for a run that is locked, and is removed again if it was made here and nothing came
/// of it.
class RunPlace {
 public:
  /// Throws as RunDirectory::create (unless the run is to `resume`) and RunLock do.
  RunPlace(const RunDirectory& directory, bool resume);
  ~RunPlace();
  RunPlace(const RunPlace&) = delete;
  RunPlace& operator=(const RunPlace&) = delete;

 private:
  const std::filesystem::path path_;
  const bool made_;
  std::optional<RunLock> lock_;
};

}  // namespace mlomae
