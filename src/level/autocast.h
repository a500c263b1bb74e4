#pragma once

#include "level/level.h"

namespace mlo {

/// For its lifetime LibTorch's autocast is on for the level's device, if its precision asks for it;
/// off and forgotten afterwards.
class AutocastGuard {
 public:
  explicit AutocastGuard(const Level& level);
  ~AutocastGuard();
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  const bool on_;
  const at::DeviceType device_;
  bool was_on_ = false;
  at::ScalarType was_ = at::kFloat;
};

}  // namespace mlo
