#include "mlo/data/image_source.h"

#include "data/fingerprint.h"
#include "replay/random.h"
#include "text.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randperm.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

namespace mlo {
namespace {

using Images = std::shared_ptr<const ImageSet>;

// Images and labels of some rows. `key` gives each its stream.
template <class Key>
std::vector<at::Tensor> prepared(const ImageSet& set, const int64_t* rows, int64_t count,
                                 const Augmentation& augmentation, bool pinned, Key&& key) {
  const int64_t channels = set.channels(), side = augmentation.size;
  at::Tensor images =
      at::empty({count, channels, side, side}, at::TensorOptions(at::kFloat).pinned_memory(pinned));
  at::Tensor labels = at::empty({count}, at::TensorOptions(at::kLong).pinned_memory(pinned));
  for (int64_t i = 0; i < count; ++i) {
    augment(set.image(rows[i]), augmentation, key(rows[i]),
            images.mutable_data_ptr<float>() + i * channels * side * side);
    labels.mutable_data_ptr<int64_t>()[i] = set.label(rows[i]);
  }
  return {std::move(images), std::move(labels)};
}

std::string text_of(const Augmentation& a) {
  std::string text = message("size {}", a.size);
  if (a.crop_padding > 0) text += message(", crop_padding {}", a.crop_padding);
  if (const auto& crop = a.resized_crop)
    text += message(", resized_crop {} to {} by {} to {}", crop->smallest_area, crop->largest_area,
                    crop->narrowest, crop->widest);
  if (a.flip) text += ", flip";
  return text +
         message(", mean {}, deviation {}", fmt::join(a.mean, " "), fmt::join(a.deviation, " "));
}

/// Batches are numbered from the first of the first epoch; what a batch holds follows from the key
/// and its number alone. Workers prepare the numbers [next_, next_ + prefetch), whichever is not
/// taken yet.
class ImageSource final : public BatchSource {
 public:
  ImageSource(Images images, std::vector<int64_t> rows, const ImageSourceOptions& options)
      : images_(std::move(images)), rows_(std::move(rows)), options_(options), key_(options.seed) {
    const auto count = static_cast<int64_t>(rows_.size()), size = options_.batch_size;
    batches_ = options_.drop_last ? count / size : (count + size - 1) / size;
  }
  ~ImageSource() override { stop(); }
  ImageSource(const ImageSource&) = delete;
  ImageSource& operator=(const ImageSource&) = delete;

  Batch next() override {
    std::vector<at::Tensor> batch = options_.workers == 0 ? prepare(next_) : from_workers();
    if (options_.device.is_cuda())
      for (at::Tensor& tensor : batch) tensor = tensor.to(options_.device, /*non_blocking=*/true);
    {
      const std::lock_guard lock(mutex_);
      ready_.erase(next_);
      ++next_;
    }
    work_.notify_all();
    return Batch(std::move(batch));
  }

  int64_t epoch() const override { return next_ / batches_; }

  void seed(uint64_t key) override {
    if (options_.seed != 0) return;
    restart(key, 0);
  }

  std::string fingerprint() const override {
    detail::Checksum rows;
    rows.add(rows_.data(), rows_.size() * sizeof(int64_t));
    if (of_images_.empty()) of_images_ = images_->fingerprint();
    return message("{} rows ({}) of [{}], in batches of {}{}{}{}, augmentation {}", rows_.size(),
                   rows.text(), of_images_, options_.batch_size,
                   options_.drop_last ? "" : " with the last", options_.shuffle ? ", shuffled" : "",
                   options_.seed != 0 ? message(", seed {}", options_.seed) : "",
                   text_of(options_.augmentation));
  }

  void save(State& state, const std::string& prefix) const override {
    state.set(prefix + "rows", static_cast<int64_t>(rows_.size()));
    state.set(prefix + "batch_size", options_.batch_size);
    state.set(prefix + "batches_an_epoch", batches_);
    state.set(prefix + "shuffle", static_cast<int64_t>(options_.shuffle));
    state.set(prefix + "key", static_cast<int64_t>(key_));
    state.set(prefix + "next", next_);
  }

  void load(const State& state, const std::string& prefix) override {
    const auto same = [&](const char* name, int64_t own) {
      if (const int64_t saved = state.integer(prefix + name); saved != own)
        refuse<CheckpointError>(
            "'{}{}' is {} in the state, and {} in this source; resume with the same images, "
            "batch_size, shuffle and drop_last",
            prefix, name, saved, own);
    };
    same("rows", static_cast<int64_t>(rows_.size()));
    same("batch_size", options_.batch_size);
    same("batches_an_epoch", batches_);
    same("shuffle", static_cast<int64_t>(options_.shuffle));
    const int64_t next = state.integer(prefix + "next");
    if (next < 0)
      refuse<CheckpointError>(
          "'{}next' is {} in the state, expected at least 0; resume from another checkpoint",
          prefix, next);
    restart(static_cast<uint64_t>(state.integer(prefix + "key")), next);
  }

 private:
  using Order = std::shared_ptr<const std::vector<int64_t>>;

  void restart(uint64_t key, int64_t next) {
    stop();
    key_ = key;
    next_ = next;
    taken_ = next;
    orders_.clear();
    ready_.clear();
  }

  // The rows of an epoch in the order in which they come.
  Order order(int64_t epoch) {
    const std::lock_guard lock(order_mutex_);
    Order& cached = orders_[epoch];
    if (!cached) {
      std::vector<int64_t> rows = rows_;
      if (options_.shuffle) {
        auto generator = at::detail::createCPUGenerator(stream_key(key_, 0, epoch, 0));
        const at::Tensor places =
            at::randperm(static_cast<int64_t>(rows.size()), generator, at::kLong);
        for (std::size_t i = 0; i < rows.size(); ++i)
          rows[i] = rows_[static_cast<std::size_t>(places.const_data_ptr<int64_t>()[i])];
      }
      cached = std::make_shared<const std::vector<int64_t>>(std::move(rows));
    }
    const Order found = cached;
    while (orders_.size() > 2) orders_.erase(orders_.begin());  // workers are in two epochs at most
    return found;
  }

  std::vector<at::Tensor> prepare(int64_t number) {
    const int64_t epoch = number / batches_, begin = number % batches_ * options_.batch_size;
    const Order rows = order(epoch);
    const int64_t count = std::min(options_.batch_size, static_cast<int64_t>(rows->size()) - begin);
    return prepared(*images_, rows->data() + begin, count, options_.augmentation,
                    options_.device.is_cuda(),
                    [&](int64_t row) { return stream_key(key_, 1, epoch, row); });
  }

  struct Result {
    std::vector<at::Tensor> batch = {};
    std::exception_ptr error = nullptr;
  };

  std::vector<at::Tensor> from_workers() {
    if (threads_.empty()) {
      stopping_ = false;
      for (int64_t i = 0; i < options_.workers; ++i) threads_.emplace_back([this] { work(); });
    }
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return ready_.count(next_) != 0; });
    const Result& result = ready_.at(next_);
    if (result.error) std::rethrow_exception(result.error);
    return result.batch;
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      work_.wait(lock, [&] { return stopping_ || taken_ < next_ + options_.prefetch; });
      if (stopping_) return;
      const int64_t number = taken_++;
      lock.unlock();
      Result result;
      try {
        result.batch = prepare(number);
      } catch (...) {
        result.error = std::current_exception();
      }
      lock.lock();
      ready_.emplace(number, std::move(result));
      done_.notify_all();
    }
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  const Images images_;
  const std::vector<int64_t> rows_;
  const ImageSourceOptions options_;
  mutable std::string of_images_;  // their fingerprint, once it was asked for
  int64_t batches_ = 0;            // an epoch
  uint64_t key_;

  std::mutex order_mutex_;
  std::map<int64_t, Order> orders_;

  std::mutex mutex_;  // of what follows
  std::condition_variable work_, done_;
  std::map<int64_t, Result> ready_;
  int64_t next_ = 0;   // the number that `next` hands out; written by its thread only
  int64_t taken_ = 0;  // the next one that a worker takes
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

void ImageSourceOptions::validate() const {
  require(batch_size >= 1, "ImageSourceOptions::batch_size = {}; it must be at least 1",
          batch_size);
  require(workers >= 0, "ImageSourceOptions::workers = {}; it must be at least 0", workers);
  require(prefetch >= 1, "ImageSourceOptions::prefetch = {}; it must be at least 1", prefetch);
}

std::unique_ptr<BatchSource> image_source(std::shared_ptr<const ImageSet> images,
                                          std::vector<int64_t> rows, ImageSourceOptions options) {
  require(images != nullptr, "image_source: the image set is null; give one");
  options.validate();
  options.augmentation.validate(images->channels());
  if (rows.empty())
    for (int64_t i = 0; i < images->size(); ++i) rows.push_back(i);
  for (const int64_t row : rows)
    require(row >= 0 && row < images->size(),
            "image_source: row {} of {} images; it must be at least 0, and less than their number",
            row, images->size());
  require(!rows.empty() &&
              (!options.drop_last || options.batch_size <= static_cast<int64_t>(rows.size())),
          "ImageSourceOptions::batch_size = {}, but there are only {} images; take a smaller "
          "batch_size, or drop_last = false",
          options.batch_size, rows.size());
  return std::make_unique<ImageSource>(std::move(images), std::move(rows), options);
}

Batch image_batch(const ImageSet& images, const std::vector<int64_t>& rows, int64_t begin,
                  int64_t end, const Augmentation& augmentation) {
  if (begin < 0 || begin >= end || end > static_cast<int64_t>(rows.size()))
    refuse<ConfigError>(
        "image_batch: begin = {}, end = {} with {} rows; it must be 0 <= begin < end <= the number "
        "of rows",
        begin, end, rows.size());
  return Batch(prepared(images, rows.data() + begin, end - begin, augmentation, false,
                        [](int64_t row) { return stream_key(0, 1, 0, row); }));
}

}  // namespace mlo
