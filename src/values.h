#pragma once

#include "mlo/tensors.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace mlo {

/// Values of a level's parameters at some moment. While nothing has written the parameters since, they are the live ones.
struct FrozenValues {
  Tensors copy;                    ///< meaningless while live
  std::vector<int64_t> versions;   ///< autograd's version counters at that moment
  bool live = true;
};

/// A level's parameters with copy-on-write handles to what they were: a step record holds a handle, and a copy is made only if
/// the parameters are about to change while somebody holds one. Copies are recycled.
class Values {
 public:
  explicit Values(Tensors live) : live_(std::move(live)) {}

  const Tensors& live() const { return live_; }
  /// A handle to the values as they are.
  std::shared_ptr<const FrozenValues> freeze();
  /// Call before writing the parameters.
  void about_to_change();

 private:
  Tensors live_;
  std::shared_ptr<FrozenValues> current_;
  std::vector<std::shared_ptr<FrozenValues>> slots_;
};

/// For its lifetime the live parameters are, bit for bit and version for version, what they were when `frozen` was taken.
class Rewind {
 public:
  Rewind(const Tensors& live, std::shared_ptr<const FrozenValues> frozen, Tensors& scratch);
  ~Rewind();
  Rewind(const Rewind&) = delete;
  Rewind& operator=(const Rewind&) = delete;

  /// The recorded values again, after somebody has written the live parameters within the rewind.
  void again() const;

 private:
  const Tensors& live_;
  std::shared_ptr<const FrozenValues> frozen_;  // holds the copy against being recycled
  Tensors& scratch_;                            // the present values, to be put back
  std::vector<int64_t> versions_;
};

}  // namespace mlo
