#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <initializer_list>
#include <utility>
#include <vector>

namespace mlo {

/// What a level's loss is given: the tensors of its data sources, in the order they were declared. May be empty (a
/// problem that holds its own data).
class Batch {
 public:
  Batch() = default;
  Batch(std::initializer_list<at::Tensor> tensors) : tensors_(tensors) {}
  explicit Batch(std::vector<at::Tensor> tensors) : tensors_(std::move(tensors)) {}

  /// The i-th tensor. Throws std::out_of_range.
  const at::Tensor& operator[](std::size_t i) const { return tensors_.at(i); }
  std::size_t size() const { return tensors_.size(); }
  const std::vector<at::Tensor>& tensors() const { return tensors_; }

 private:
  std::vector<at::Tensor> tensors_;
};

}  // namespace mlo
