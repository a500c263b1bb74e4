#pragma once

#include "mlo/batch.h"
#include "mlo/state.h"

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// An endless, resumable stream of batches with its own random stream.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual Batch next() = 0;
  /// Times all of the data has been handed out; 0 where that has no meaning.
  virtual int64_t epoch() const { return 0; }
  /// Called once, before the first batch, with the key of the stream this source draws from. A
  /// source with a seed of its own ignores it.
  virtual void seed(uint64_t /*key*/) {}
  /// A text, for people too, that differs where the stream would: rows, shapes, types, batches,
  /// order and a checksum of what is handed out, or of a part of it. A resumed run is compared by
  /// it (`LoadOptions`), and it is asked for at each save. Empty: the class is all that is
  /// compared.
  virtual std::string fingerprint() const { return {}; }
  /// Under keys that begin with `prefix` ("level/head/data/").
  virtual void save(State& state, const std::string& prefix) const = 0;
  /// Throws CheckpointError, with the source as before, for the state of a source of other rows,
  /// batches or order.
  virtual void load(const State& state, const std::string& prefix) = 0;
};

/// What a level takes for `.data`: nothing (empty batches), a source, several sources (`zip`), a
/// batch (the same at every step), or a function of the number of batches the level was given
/// before. It is called with a random stream of that number's own, so that at::randint and the like
/// are replayable and resumable in it.
class Data {
 public:
  Data() = default;
  Data(std::unique_ptr<BatchSource> source);        // NOLINT(google-explicit-constructor)
  template <std::derived_from<BatchSource> Source>  // a source of the user's own class
  Data(std::unique_ptr<Source> source)              // NOLINT(google-explicit-constructor)
      : Data(std::unique_ptr<BatchSource>(std::move(source))) {}
  Data(Batch full);  // NOLINT(google-explicit-constructor)
  template <std::invocable<int64_t> Function>
  requires std::convertible_to<std::invoke_result_t<Function, int64_t>, Batch> Data(Function batch)
      : function_(std::move(batch)) {}  // NOLINT(google-explicit-constructor)

  bool empty() const { return !source_ && !function_; }
  BatchSource* source() const { return source_.get(); }
  const std::function<Batch(int64_t)>& function() const { return function_; }

 private:
  std::unique_ptr<BatchSource> source_;
  std::function<Batch(int64_t)> function_;
};

struct TensorSourceOptions {
  int64_t batch_size = 0;  ///< rows a batch; 0: all of them
  bool shuffle = true;     ///< a new order at each epoch; ignored for full batches
  bool drop_last = true;   ///< leave out an epoch's last, smaller batch
  /// 0: a stream of the engine's seed and the level; else a seed of this source's own.
  uint64_t seed = 0;

  void validate() const;
};
/// Rows of tensors that have the same first dimension, in batches; full batches and unshuffled ones
/// are not copied. Throws ConfigError when there are no rows, or fewer than one batch.
std::unique_ptr<BatchSource> tensor_source(std::vector<at::Tensor> tensors,
                                           TensorSourceOptions options = {});

/// Batches of several sources side by side: the tensors of the first, then those of the second, …
/// Epochs are the first's.
std::unique_ptr<BatchSource> zip(std::vector<std::unique_ptr<BatchSource>> sources);
template <std::same_as<std::unique_ptr<BatchSource>>... Sources>
std::unique_ptr<BatchSource> zip(Sources... sources) {
  std::vector<std::unique_ptr<BatchSource>> all;
  (all.push_back(std::move(sources)), ...);
  return zip(std::move(all));
}

}  // namespace mlo
#pragma GCC visibility pop
