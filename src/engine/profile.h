#pragma once

#include "mlo/counters.h"

#include <ATen/core/Tensor.h>

#include <chrono>

namespace mlo {

/// For its lifetime measures seconds and peak memory into a level's counters; does nothing if off.
class ProfileGuard {
 public:
  ProfileGuard(bool on, Counters& counters, at::Device device);
  ~ProfileGuard();
  ProfileGuard(const ProfileGuard&) = delete;
  ProfileGuard& operator=(const ProfileGuard&) = delete;

 private:
  const bool on_;
  Counters& counters_;
  const at::Device device_;
  int64_t before_ = 0;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace mlo
