#pragma once

#include "mlo/error.h"

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {
namespace detail {
/// The engine says level and step besides.
class NoSuchTensor final : public LossError {
  using LossError::LossError;
};
}  // namespace detail

/// What a level's loss is given: the tensors of its data sources, in the order they were declared.
/// May be empty (a problem that holds its own data).
class Batch {
 public:
  Batch() = default;
  Batch(std::initializer_list<at::Tensor> tensors) : tensors_(tensors) {}
  explicit Batch(std::vector<at::Tensor> tensors) : tensors_(std::move(tensors)) {}

  /// The i-th tensor. Throws LossError if there is none.
  const at::Tensor& operator[](std::size_t i) const {
    if (i >= tensors_.size())
      throw detail::NoSuchTensor("tensor " + std::to_string(i) + " of a batch that has " +
                                 std::to_string(tensors_.size()));
    return tensors_[i];
  }
  std::size_t size() const { return tensors_.size(); }
  const std::vector<at::Tensor>& tensors() const { return tensors_; }

 private:
  std::vector<at::Tensor> tensors_;
};

}  // namespace mlo
#pragma GCC visibility pop
