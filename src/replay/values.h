#pragma once

#include "mlo/tensors.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace mlo {

/// Values of a level's parameters at some moment. While nothing has written the parameters since,
/// they are the live ones.
struct FrozenValues {
  Tensors copy;                   ///< meaningless while live
  std::vector<int64_t> versions;  ///< autograd's version counters at that moment
  bool live = true;
  /// the parameters were written without about_to_change: what they were is gone
  bool lost = false;
};

/// A level's parameters with copy-on-write handles to what they were: a step record holds a handle,
/// and a copy is made only if the parameters are about to change while somebody holds one. Copies
/// are recycled.
class Values {
 public:
  explicit Values(Tensors live) : live_(std::move(live)) {}

  const Tensors& live() const { return live_; }
  /// A handle to the values as they are.
  std::shared_ptr<const FrozenValues> freeze();
  /// Call before writing the parameters, and before a hook that may.
  void about_to_change();
  /// The values of a handle are gone: somebody has written the parameters without about_to_change.
  bool lost(const FrozenValues& frozen) const;

 private:
  Tensors live_;
  std::shared_ptr<FrozenValues> current_;
  std::vector<std::shared_ptr<FrozenValues>> slots_;
};

/// What losses may read and no level trains: the buffers of their modules, and frozen parameters (a
/// teacher). Their owner may write them at any time, so values are copied when they are recorded;
/// copies are shared while the values stay the same. A buffer is compared bit for bit, because
/// LibTorch's batch norm writes its own without a trace; a frozen parameter may be large and is
/// taken to have moved if autograd's version counter says so.
class Untrained {
 public:
  void clear();
  void add(const at::Tensor& tensor, bool buffer);

  const Tensors& live() const { return live_; }
  bool empty() const { return live_.empty(); }
  /// Which of them are buffers: the first so many.
  std::size_t buffers() const { return buffers_; }
  /// Handles to the values as they are, one for each of live(). Not to be written.
  Tensors snapshot();
  /// Puts the values of a snapshot back, without a trace for autograd.
  void set(const Tensors& snapshot);

 private:
  struct Mark {
    int64_t version = 0;
    const void* memory = nullptr;
    bool operator==(const Mark&) const = default;
  };
  static Mark mark(const at::Tensor& tensor);
  bool moved(std::size_t i) const;

  Tensors live_, copies_;  // copies_[i]: what live_[i] was when it was at marks_[i]
  std::vector<Mark> marks_;
  std::size_t buffers_ = 0;
};

/// For its lifetime the live parameters are, bit for bit and version for version, what they were
/// when `frozen` was taken.
class RewindGuard {
 public:
  RewindGuard(const Tensors& live, std::shared_ptr<const FrozenValues> frozen, Tensors& scratch);
  ~RewindGuard();
  RewindGuard(const RewindGuard&) = delete;
  RewindGuard& operator=(const RewindGuard&) = delete;

  /// The recorded values again, after somebody has written the live parameters within the rewind.
  void again() const;

 private:
  const Tensors& live_;
  std::shared_ptr<const FrozenValues> frozen_;  // holds the copy against being recycled
  Tensors& scratch_;                            // the present values, to be put back
  std::vector<int64_t> versions_;
};

}  // namespace mlo
