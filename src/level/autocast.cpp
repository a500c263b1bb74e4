#include "precompiled.h"

#include "level/autocast.h"

#include <ATen/autocast_mode.h>

namespace mlo {

AutocastGuard::AutocastGuard(const Level& level)
    : on_(level.options.precision == Precision::bfloat16),
      device_(level.parameters.front().device().type()) {
  if (!on_) return;
  was_on_ = at::autocast::is_autocast_enabled(device_);
  was_ = at::autocast::get_autocast_dtype(device_);
  at::autocast::set_autocast_enabled(device_, true);
  at::autocast::set_autocast_dtype(device_, at::kBFloat16);
}

AutocastGuard::~AutocastGuard() {
  if (!on_) return;
  at::autocast::clear_cache();
  at::autocast::set_autocast_dtype(device_, was_);
  at::autocast::set_autocast_enabled(device_, was_on_);
}

}  // namespace mlo
