#include "precompiled.h"

#include "replay/values.h"

#include <cstring>

namespace mlo {
namespace {

void set_versions(const Tensors& tensors, const std::vector<int64_t>& versions) {
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    auto counter = tensors[i].unsafeGetTensorImpl()->version_counter();
    if (counter.current_version() != versions[i]) counter.set_version(versions[i]);
  }
}

bool is_at(const Tensors& tensors, const std::vector<int64_t>& versions) {
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (tensors[i]._version() != versions[i]) return false;
  return true;
}

std::vector<int64_t> versions_of(const Tensors& tensors) {
  std::vector<int64_t> versions(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) versions[i] = tensors[i]._version();
  return versions;
}

// Buffers for values like these; made once and recycled.
void make_room(Tensors& room, const Tensors& like) {
  if (!room.empty()) return;
  const at::NoGradGuard no_grad;
  for (const auto& tensor : like) room.push_back(at::empty_like(tensor.detach()));
}

}  // namespace

std::shared_ptr<const FrozenValues> Values::freeze() {
  // Somebody else may have written since: a model loaded between two steps.
  if (current_ && is_at(live_, current_->versions)) return current_;
  current_ = nullptr;
  for (auto& slot : slots_)
    if (slot.use_count() == 1) current_ = slot;
  if (!current_) current_ = slots_.emplace_back(std::make_shared<FrozenValues>());
  current_->live = true;
  current_->lost = false;
  current_->versions.resize(live_.size());
  for (std::size_t i = 0; i < live_.size(); ++i) current_->versions[i] = live_[i]._version();
  return current_;
}

void Values::about_to_change() {
  if (!current_) return;
  if (current_.use_count() > 2) {  // held by more than slots_ and current_
    if (is_at(live_, current_->versions)) {
      make_room(current_->copy, live_);
      copy_values(current_->copy, live_);
    } else {
      current_->lost = true;
    }
    current_->live = false;
  }
  current_ = nullptr;
}

bool Values::lost(const FrozenValues& frozen) const {
  return frozen.lost || (frozen.live && !is_at(live_, frozen.versions));
}

void Untrained::clear() { *this = {}; }

void Untrained::add(const at::Tensor& tensor, bool buffer) {
  TORCH_INTERNAL_ASSERT(!buffer || buffers_ == live_.size(), "buffers come first");
  live_.push_back(tensor);
  copies_.emplace_back();
  marks_.emplace_back();
  if (buffer) ++buffers_;
}

Untrained::Mark Untrained::mark(const at::Tensor& tensor) {
  return {tensor._version(), tensor.const_data_ptr()};
}

bool Untrained::moved(std::size_t i) const {
  const at::Tensor &live = live_[i], &copy = copies_[i];
  if (!copy.defined()) return true;
  if (live.scalar_type() != copy.scalar_type() || live.sizes() != copy.sizes()) return true;
  if (i >= buffers_ && !live.is_inference()) return mark(live) != marks_[i];
  if (live.numel() == 0) return false;
  const bool comparable = live.is_cpu() && live.is_contiguous() && copy.is_contiguous();
  return !comparable ||
         std::memcmp(live.const_data_ptr(), copy.const_data_ptr(), live.nbytes()) != 0;
}

Tensors Untrained::snapshot() {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < live_.size(); ++i) {
    if (!moved(i)) continue;
    copies_[i] = live_[i].detach().clone();
    if (!live_[i].is_inference()) marks_[i] = mark(live_[i]);
  }
  return copies_;
}

void Untrained::set(const Tensors& snapshot) {
  for (std::size_t i = 0; i < live_.size(); ++i) {
    if (i >= buffers_ && snapshot[i].is_same(copies_[i]) && !moved(i)) continue;
    copy_values({live_[i]}, {snapshot[i]});
    copies_[i] = snapshot[i];
    if (!live_[i].is_inference()) marks_[i] = mark(live_[i]);
  }
}

RewindGuard::RewindGuard(const Tensors& live, std::shared_ptr<const FrozenValues> frozen,
                         Tensors& scratch)
    : live_(live), frozen_(std::move(frozen)), scratch_(scratch), versions_(versions_of(live)) {
  make_room(scratch_, live_);
  copy_values(scratch_, live_);
  if (!frozen_->live) copy_values(live_, frozen_->copy);
  set_versions(live_, frozen_->versions);
}

void RewindGuard::again() const { copy_values(live_, frozen_->live ? scratch_ : frozen_->copy); }

RewindGuard::~RewindGuard() {
  copy_values(live_, scratch_);
  set_versions(live_, versions_);
}

}  // namespace mlo
