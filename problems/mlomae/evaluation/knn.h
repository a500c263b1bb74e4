#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mlomae {

struct KnnOptions {
  int64_t neighbours = 20;
  double temperature = 0.07;
};
/// Accuracy of the weighted vote of the k nearest training features by cosine, each counting
/// exp(similarity / temperature) (Wu et al. 2018). Features [N, dim], labels int64 [N]. A set
/// smaller than k votes as a whole.
double knn_accuracy(const at::Tensor& features, const at::Tensor& labels,
                    const at::Tensor& test_features, const at::Tensor& test_labels, int64_t classes,
                    const KnnOptions& options = {});

}  // namespace mlomae
