#include "precompiled.h"

#include "replay/choices.h"

#include "mlo/error.h"
#include "mlo/replayed.h"
#include "replay/random.h"
#include "text.h"

namespace mlo {
namespace {
thread_local ChoiceTape* current_tape = nullptr;
thread_local int forbidden = 0;
}  // namespace

ChoiceTape::ChoiceTape(Record, Tensors& choices, const std::string& level, uint64_t seed)
    : choices_(choices), recording_(&choices), level_(level), seed_(seed), outer_(current_tape) {
  recording_->clear();
  current_tape = this;
}

ChoiceTape::ChoiceTape(const Tensors& recorded, const std::string& level, uint64_t seed)
    : choices_(recorded), recording_(nullptr), level_(level), seed_(seed), outer_(current_tape) {
  current_tape = this;
}

ChoiceTape::~ChoiceTape() { current_tape = outer_; }

const at::Tensor* ChoiceTape::begin() {
  if (recording_) {
    if (depth_++ > 0) return nullptr;  // the outer choice is what is recorded
    generators_ = generator_states();
    seed_generators(stream_key(seed_, name_key("choice"), static_cast<int64_t>(position_++), 0));
    return nullptr;
  }
  if (position_ == choices_.size())
    refuse<LossError>(
        "level {}: on replay the loss calls mlo::replayed more often than in the step itself, "
        "where it did so {} times; the number of calls must not depend on the parameters",
        quoted(level_), choices_.size());
  return &choices_[position_++];
}

void ChoiceTape::end(const at::Tensor* choice) {
  if (--depth_ > 0) return;
  set_generator_states(generators_);
  if (!choice) return;
  // What shares its memory with a parameter would follow the parameter's shifts.
  const at::NoGradGuard no_grad;
  recording_->push_back(choice->has_storage() && choice->storage().use_count() > 1 ? choice->clone()
                                                                                   : *choice);
}

void ChoiceTape::finish() const {
  if (!recording_ && position_ < choices_.size())
    refuse<LossError>(
        "level {}: on replay the loss called mlo::replayed {} times, in the step itself {} "
        "times; the number of calls must not depend on the parameters",
        quoted(level_), position_, choices_.size());
}

NoChoicesGuard::NoChoicesGuard() { ++forbidden; }
NoChoicesGuard::~NoChoicesGuard() { --forbidden; }

namespace detail {

Choice::Choice() {
  if (forbidden > 0)
    refuse<LossError>(
        "mlo::replayed was called inside mlo::checkpointed, which runs its function again; make "
        "the choice before, and let the function use it");
  if (!current_tape) return;
  recorded_ = current_tape->begin();
  open_ = !recorded_;
}

Choice::~Choice() {
  if (open_) current_tape->end(nullptr);
}

at::Tensor Choice::take(at::Tensor choice) {
  choice = choice.detach();
  if (open_) {
    open_ = false;
    current_tape->end(&choice);
  }
  return choice;
}

}  // namespace detail
}  // namespace mlo
