#pragma once

#include <filesystem>

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

}  // namespace mlomae
