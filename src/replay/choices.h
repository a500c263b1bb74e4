#pragma once

#include "mlo/tensors.h"

#include <string>

namespace mlo {

/// For its lifetime `mlo::replayed` on this thread records into, or plays back from, a draw's
/// choices. A choice draws random numbers from a stream of its own (of `seed` and its number), so
/// that what the loss draws after it is the same whether it is taken or played back.
class ChoiceTape {
 public:
  struct Record {};
  static constexpr Record record = {};
  ChoiceTape(Record, Tensors& choices, const std::string& level, uint64_t seed);
  ChoiceTape(const Tensors& recorded, const std::string& level, uint64_t seed);
  ~ChoiceTape();
  ChoiceTape(const ChoiceTape&) = delete;
  ChoiceTape& operator=(const ChoiceTape&) = delete;

  /// A choice begins: the recorded one, or null if it is to be taken and handed to `end`.
  const at::Tensor* begin();
  /// The choice that was begun last is taken; null: it threw.
  void end(const at::Tensor* choice);
  /// After the evaluation: throws LossError if a replay has not asked for all choices.
  void finish() const;

 private:
  const Tensors& choices_;
  Tensors* const recording_;  // null: they are played back
  const std::string& level_;
  const uint64_t seed_;
  std::size_t position_ = 0;
  std::size_t depth_ = 0;               // of choices that are being taken, one inside the other
  std::vector<at::Tensor> generators_;  // the loss's own, while a choice is being taken
  ChoiceTape* const outer_;
};

/// For its lifetime `mlo::replayed` on this thread is refused.
class NoChoicesGuard {
 public:
  NoChoicesGuard();
  ~NoChoicesGuard();
  NoChoicesGuard(const NoChoicesGuard&) = delete;
  NoChoicesGuard& operator=(const NoChoicesGuard&) = delete;
};

}  // namespace mlo
