#pragma once

#include "mlo/counters.h"

#include <ATen/core/Tensor.h>

#include <chrono>

namespace mlo {

/// For its lifetime measures seconds and peak memory into a level's counters; does nothing if off.
class Profile {
 public:
  Profile(bool on, Counters& counters, at::Device device);
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

 private:
  const bool on_;
  Counters& counters_;
  const at::Device device_;
  int64_t before_ = 0;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace mlo
