#include "precompiled.h"

#include "values.h"

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
  current_->versions.resize(live_.size());
  for (std::size_t i = 0; i < live_.size(); ++i) current_->versions[i] = live_[i]._version();
  return current_;
}

void Values::about_to_change() {
  if (!current_) return;
  if (current_.use_count() > 2) {  // held by more than slots_ and current_
    make_room(current_->copy, live_);
    copy_values(current_->copy, live_);
    current_->live = false;
  }
  current_ = nullptr;
}

Rewind::Rewind(const Tensors& live, std::shared_ptr<const FrozenValues> frozen, Tensors& scratch)
    : live_(live), frozen_(std::move(frozen)), scratch_(scratch), versions_(versions_of(live)) {
  make_room(scratch_, live_);
  copy_values(scratch_, live_);
  if (!frozen_->live) copy_values(live_, frozen_->copy);
  set_versions(live_, frozen_->versions);
}

void Rewind::again() const { copy_values(live_, frozen_->live ? scratch_ : frozen_->copy); }

Rewind::~Rewind() {
  copy_values(live_, scratch_);
  set_versions(live_, versions_);
}

}  // namespace mlo
