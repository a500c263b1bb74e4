#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <variant>

#pragma GCC visibility push(default)
namespace mlo {

/// Everything a run must remember, as one flat map from a path ("level/head/steps") to a value.
/// What objects put in is what a checkpoint holds, no more and no less.
class State {
 public:
  using Value = std::variant<int64_t, double, std::string, at::Tensor>;

  /// Throws CheckpointError when the key is there already.
  void set(const std::string& key, Value value);
  bool has(const std::string& key) const { return values_.count(key) != 0; }
  /// Throw CheckpointError naming the key, and the type that was expected, when it is missing or of
  /// another type.
  int64_t integer(const std::string& key) const;
  double real(const std::string& key) const;
  const std::string& text(const std::string& key) const;
  const at::Tensor& tensor(const std::string& key) const;

  const std::map<std::string, Value>& values() const { return values_; }

 private:
  std::map<std::string, Value> values_;
};

}  // namespace mlo
#pragma GCC visibility pop
