#pragma once

#include "level/level.h"

namespace mlo {

/// Puts back at the end what an evaluation of a level's loss besides its steps touches: buffers,
/// frozen parameters, counters.
class UntouchedGuard {
 public:
  UntouchedGuard(Levels& levels, Level& level)
      : levels_(levels),
        counters_(level.counters),
        before_(level.counters),
        untrained_(levels.untrained.snapshot()) {}
  ~UntouchedGuard() {
    levels_.untrained.set(untrained_);
    counters_ = before_;
  }
  UntouchedGuard(const UntouchedGuard&) = delete;
  UntouchedGuard& operator=(const UntouchedGuard&) = delete;

  void buffers_again() const { levels_.untrained.set(untrained_); }

 private:
  Levels& levels_;
  Counters& counters_;
  const Counters before_;
  const Tensors untrained_;
};

}  // namespace mlo
