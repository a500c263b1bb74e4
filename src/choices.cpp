#include "precompiled.h"

#include "choices.h"

#include "mlo/error.h"
#include "mlo/replayed.h"
#include "random.h"

namespace mlo {
namespace {
thread_local ChoiceTape* current_tape = nullptr;
thread_local int forbidden = 0;
}  // namespace

ChoiceTape::ChoiceTape(Tensors& choices, bool replay, const std::string& level, uint64_t seed)
    : choices_(choices), replay_(replay), level_(level), seed_(seed), outer_(current_tape) {
  if (!replay_) choices_.clear();
  current_tape = this;
}

ChoiceTape::~ChoiceTape() {
  if (!streams_.empty()) set_generator_states(streams_.front());  // a choice threw
  current_tape = outer_;
}

const at::Tensor* ChoiceTape::next() {
  if (!replay_) {
    streams_.push_back(generator_states());
    seed_generators(stream_key(seed_, name_key("choice"), static_cast<int64_t>(position_++), 0));
    return nullptr;
  }
  if (position_ == choices_.size())
    throw LossError("level '" + level_ + "': on replay the loss called mlo::replayed a " + std::to_string(position_ + 1) +
                    ". time, in the step itself it called it " + std::to_string(choices_.size()) +
                    " times; the number of calls must not depend on the parameters");
  return &choices_[position_++];
}

void ChoiceTape::record(const at::Tensor& choice) {
  set_generator_states(streams_.back());
  streams_.pop_back();
  choices_.push_back(choice);
}

NoChoices::NoChoices() { ++forbidden; }
NoChoices::~NoChoices() { --forbidden; }

namespace detail {

const at::Tensor* next_recorded_choice() {
  if (forbidden > 0)
    throw LossError(
        "mlo::replayed was called inside mlo::checkpointed, which runs its function again; make the choice before, and let the "
        "function use it");
  return current_tape ? current_tape->next() : nullptr;
}

at::Tensor record_choice(at::Tensor choice) {
  choice = choice.detach();
  if (current_tape) current_tape->record(choice);
  return choice;
}

}  // namespace detail
}  // namespace mlo
