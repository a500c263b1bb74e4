#include "mlo/data/source.h"

#include "data/fingerprint.h"
#include "replay/random.h"
#include "text.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/narrow.h>
#include <ATen/ops/randperm.h>
#include <c10/util/Type.h>

#include <algorithm>
#include <typeinfo>

namespace mlo {
namespace {

/// Rows in batches, at least one row. The order of an epoch follows from the key and the epoch's
/// number alone, so three numbers are the whole state.
class TensorSource final : public BatchSource {
 public:
  /// `batch_size >= rows` hands out the tensors as they are.
  TensorSource(Batch tensors, int64_t rows, const TensorSourceOptions& options)
      : all_(std::move(tensors)),
        rows_(rows),
        batch_size_(options.batch_size == 0 ? rows : std::min(options.batch_size, rows)),
        rows_per_epoch_(options.drop_last ? rows - rows % batch_size_ : rows),
        shuffle_(options.shuffle && batch_size_ < rows),
        own_seed_(options.seed != 0),
        seed_(options.seed),
        key_(options.seed) {}

  Batch next() override {
    if (batch_size_ == rows_) {
      ++epoch_;
      return all_;
    }
    if (shuffle_ && orders_.empty()) shuffle();
    const int64_t size = std::min(batch_size_, rows_per_epoch_ - position_);
    std::vector<at::Tensor> batch;
    batch.reserve(all_.size());
    for (std::size_t i = 0; i < all_.size(); ++i)
      batch.push_back(shuffle_ ? all_[i].index_select(0, orders_[i].narrow(0, position_, size))
                               : all_[i].narrow(0, position_, size));
    position_ += size;
    if (position_ == rows_per_epoch_) {
      position_ = 0;
      ++epoch_;
      orders_.clear();
    }
    return Batch(std::move(batch));
  }

  int64_t epoch() const override { return epoch_; }

  void seed(uint64_t key) override {
    if (own_seed_) return;
    key_ = key;
    orders_.clear();
  }

  std::string fingerprint() const override {
    std::string text;
    for (const at::Tensor& tensor : all_.tensors())
      text += (text.empty() ? "" : ", ") + detail::fingerprint(tensor);
    if (batch_size_ == rows_) return text;
    text += message(", in batches of {}", batch_size_);
    if (rows_per_epoch_ != rows_) text += message(" without the last {}", rows_ - rows_per_epoch_);
    if (shuffle_) text += own_seed_ ? message(", shuffled from seed {}", seed_) : ", shuffled";
    return text;
  }

  void save(State& state, const std::string& prefix) const override {
    state.set(prefix + "rows", rows_);
    state.set(prefix + "batch_size", batch_size_);
    state.set(prefix + "rows_an_epoch", rows_per_epoch_);
    state.set(prefix + "shuffle", shuffle_);
    state.set(prefix + "key", static_cast<int64_t>(key_));
    state.set(prefix + "epoch", epoch_);
    state.set(prefix + "position", position_);
  }

  void load(const State& state, const std::string& prefix) override {
    const auto same = [&](const char* name, int64_t own) {
      if (const int64_t saved = state.integer(prefix + name); saved != own)
        refuse<CheckpointError>(
            "'{}{}' is {} in the state, and {} in this source; resume with the same data, "
            "batch_size, shuffle and drop_last",
            prefix, name, saved, own);
    };
    same("rows", rows_);
    same("batch_size", batch_size_);
    same("rows_an_epoch", rows_per_epoch_);
    same("shuffle", shuffle_);
    const int64_t key = state.integer(prefix + "key");
    const int64_t epoch = state.integer(prefix + "epoch");
    const int64_t position = state.integer(prefix + "position");
    if (epoch < 0 || position < 0 || position >= rows_per_epoch_ || position % batch_size_ != 0)
      refuse<CheckpointError>(
          "'{}position' is row {} of epoch {} in the state, where no batch of {} of {} rows "
          "begins; "
          "resume from another checkpoint",
          prefix, position, epoch, batch_size_, rows_per_epoch_);
    key_ = static_cast<uint64_t>(key);
    epoch_ = epoch;
    position_ = position;
    orders_.clear();
  }

 private:
  void shuffle() {
    auto generator = at::detail::createCPUGenerator(stream_key(key_, 0, epoch_, 0));
    const at::Tensor order = at::randperm(rows_, generator, at::kLong);
    for (const at::Tensor& tensor : all_.tensors()) orders_.push_back(order.to(tensor.device()));
  }

  Batch all_;
  int64_t rows_;
  int64_t batch_size_;
  int64_t rows_per_epoch_;
  bool shuffle_;
  bool own_seed_;
  uint64_t seed_;
  uint64_t key_;
  int64_t epoch_ = 0;
  int64_t position_ = 0;  // row of the epoch at which the next batch begins
  std::vector<at::Tensor>
      orders_;  // this epoch's, one for each tensor, on its device; empty: not made yet
};

class Zip final : public BatchSource {
 public:
  explicit Zip(std::vector<std::unique_ptr<BatchSource>> sources) : sources_(std::move(sources)) {}

  Batch next() override {
    std::vector<at::Tensor> all;
    for (const auto& source : sources_) {
      const Batch batch = source->next();
      all.insert(all.end(), batch.tensors().begin(), batch.tensors().end());
    }
    return Batch(std::move(all));
  }

  int64_t epoch() const override { return sources_.front()->epoch(); }

  std::string fingerprint() const override {
    std::string text;
    for (const auto& each : sources_) {
      const BatchSource& source = *each;
      const std::string own = source.fingerprint();
      text += (text.empty() ? "" : " beside ") +
              (own.empty() ? c10::demangle(typeid(source).name()) : own);
    }
    return text;
  }

  // A stream for each: with one for all, sources of as many rows would be in step.
  void seed(uint64_t key) override {
    for (std::size_t i = 0; i < sources_.size(); ++i) sources_[i]->seed(stream_key(key, i, 0, 0));
  }

  void save(State& state, const std::string& prefix) const override {
    for (std::size_t i = 0; i < sources_.size(); ++i)
      sources_[i]->save(state, message("{}{}/", prefix, i));
  }

  void load(const State& state, const std::string& prefix) override {
    State before;
    save(before, "");
    try {
      load_each(state, prefix);
    } catch (...) {
      load_each(before, "");
      throw;
    }
  }

 private:
  void load_each(const State& state, const std::string& prefix) {
    for (std::size_t i = 0; i < sources_.size(); ++i)
      sources_[i]->load(state, message("{}{}/", prefix, i));
  }

  std::vector<std::unique_ptr<BatchSource>> sources_;
};

void check_defined(const std::vector<at::Tensor>& tensors, const std::string& who) {
  require(!tensors.empty(), "{}: no tensors were given; give at least one", who);
  for (std::size_t i = 0; i < tensors.size(); ++i)
    require(tensors[i].defined(), "{}: tensor {} is undefined; give one that holds data", who, i);
}

}  // namespace

Data::Data(std::unique_ptr<BatchSource> source) : source_(std::move(source)) {
  require(
      source_ != nullptr,
      "Data: the batch source is null; give one, or leave .data out for a level without batches");
}

Data::Data(Batch full) {
  check_defined(full.tensors(),
                "Data: an empty batch (leave .data out for a level without batches)");
  const int64_t rows = full[0].dim() > 0 ? std::max<int64_t>(full[0].size(0), 1) : 1;
  source_ = std::make_unique<TensorSource>(std::move(full), rows, TensorSourceOptions{});
}

void TensorSourceOptions::validate() const {
  require(batch_size >= 0,
          "TensorSourceOptions::batch_size = {}; it must be at least 1, or 0 for all rows",
          batch_size);
}

std::unique_ptr<BatchSource> tensor_source(std::vector<at::Tensor> tensors,
                                           TensorSourceOptions options) {
  options.validate();
  check_defined(tensors, "tensor_source");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    require(tensors[i].dim() > 0,
            "tensor_source: tensor {} has no dimensions, expected rows along the first; unsqueeze "
            "it, or hold it in the problem",
            i);
    require(tensors[i].size(0) == tensors[0].size(0),
            "tensor_source: tensor {} has the shape [{}], expected the {} rows of tensor 0; give "
            "tensors that are paired row by row, or zip two sources",
            i, fmt::join(tensors[i].sizes(), ", "), tensors[0].size(0));
  }
  const int64_t rows = tensors[0].size(0);
  require(
      rows > 0,
      "tensor_source: the tensors have no rows (tensor 0 has the shape [{}]), expected at least "
      "one; look at what the data was read or filtered by",
      fmt::join(tensors[0].sizes(), ", "));
  require(!options.drop_last || options.batch_size <= rows,
          "TensorSourceOptions::batch_size = {}, but there are only {} rows, so that drop_last "
          "leaves no batch; take a smaller batch_size, or drop_last = false",
          options.batch_size, rows);
  return std::make_unique<TensorSource>(Batch(std::move(tensors)), rows, options);
}

std::unique_ptr<BatchSource> zip(std::vector<std::unique_ptr<BatchSource>> sources) {
  require(!sources.empty(), "zip: no sources were given; give at least one");
  for (std::size_t i = 0; i < sources.size(); ++i)
    require(sources[i] != nullptr, "zip: source {} is null; give a source for each", i);
  return std::make_unique<Zip>(std::move(sources));
}

}  // namespace mlo
