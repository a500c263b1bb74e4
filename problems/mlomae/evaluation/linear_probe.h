#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace mlomae {

struct LinearProbeOptions {
  /// Candidates for λ in   mean cross entropy + λ/2 ‖W‖²   on standardized features.
  std::vector<double> strengths = {1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
  /// part of the training rows by which λ is chosen; then all of them train
  double held_out = 0.1;
  int64_t iterations = 200;
  uint64_t seed = 0;  ///< of the held-out rows
};

struct LinearProbe {
  double accuracy = 0.0;       ///< on the test rows
  double strength = 0.0;       ///< the λ that was best on the held-out rows
  double training_loss = 0.0;  ///< cross entropy at the end, on all training rows
  at::Tensor weights;  ///< [dim + 1, classes] on standardized features, the last row the intercepts
  at::Tensor mean, deviation;  ///< [dim], of the training features

  /// [N, classes] of features as they are, not standardized.
  at::Tensor logits(const at::Tensor& features) const;
};

/// Multinomial logistic regression by L-BFGS, run to convergence. Features [N, dim], labels int64
/// [N] in 0 … classes − 1.
LinearProbe linear_probe(const at::Tensor& features, const at::Tensor& labels,
                         const at::Tensor& test_features, const at::Tensor& test_labels,
                         int64_t classes, const LinearProbeOptions& options = {});

/// The minimum itself: [dim + 1, classes], the last row the intercepts, which are not penalized.
/// Standardizes nothing.
at::Tensor logistic_regression(const at::Tensor& features, const at::Tensor& labels,
                               int64_t classes, double strength, int64_t iterations,
                               const at::Tensor& start = {});

}  // namespace mlomae
