#pragma once

#include "mlo/tensors.h"

#include <string>

namespace mlo {

/// For its lifetime `mlo::replayed` on this thread records into, or plays back from, a draw's choices. A choice draws random
/// numbers from a stream of its own (of `seed` and its number), so that what the loss draws after it is the same whether it is
/// taken or played back.
class ChoiceTape {
 public:
  ChoiceTape(Tensors& choices, bool replay, const std::string& level, uint64_t seed);
  ~ChoiceTape();
  ChoiceTape(const ChoiceTape&) = delete;
  ChoiceTape& operator=(const ChoiceTape&) = delete;

  const at::Tensor* next();
  void record(const at::Tensor& choice);

 private:
  Tensors& choices_;
  const bool replay_;
  const std::string& level_;
  const uint64_t seed_;
  std::size_t position_ = 0;
  std::vector<std::vector<at::Tensor>> streams_;  // the loss's generators, of the choices that are being taken
  ChoiceTape* const outer_;
};

/// For its lifetime `mlo::replayed` on this thread is refused.
class NoChoices {
 public:
  NoChoices();
  ~NoChoices();
  NoChoices(const NoChoices&) = delete;
  NoChoices& operator=(const NoChoices&) = delete;
};

}  // namespace mlo
