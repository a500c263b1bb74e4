#pragma once

#include "mlo/tensors.h"

#include <string>

namespace mlo {

/// For its lifetime `mlo::replayed` on this thread records into, or plays back from, a draw's choices.
class ChoiceTape {
 public:
  ChoiceTape(Tensors& choices, bool replay, const std::string& level);
  ~ChoiceTape();
  ChoiceTape(const ChoiceTape&) = delete;
  ChoiceTape& operator=(const ChoiceTape&) = delete;

  const at::Tensor* next();
  void record(const at::Tensor& choice) { choices_.push_back(choice); }

 private:
  Tensors& choices_;
  const bool replay_;
  const std::string& level_;
  std::size_t position_ = 0;
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
