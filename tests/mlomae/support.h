#pragma once

#include "mlomae/levels/classify.h"
#include "mlomae/levels/reconstruct.h"
#include "mlomae/levels/validate.h"

#include <mlo/mlo.h>
#include <torch/types.h>

#include <cmath>

/// The three networks of MLO-MAE in double, small.
struct Networks {
  mlomae::MaskedAutoencoder mae = nullptr;
  mlomae::Masker masker = nullptr;
  mlomae::Head head = nullptr;

  Networks(const mlomae::ModelOptions& options, int64_t hidden, int64_t classes,
           double head_dropout = 0.0, at::ScalarType type = at::kDouble)
      : mae(options),
        masker(mlomae::MaskerOptions{
            .patches = options.patches(), .dim = options.dim, .hidden = hidden}),
        head(mlomae::HeadOptions{.dim = options.dim, .classes = classes, .dropout = head_dropout}) {
    mae->to(type);
    masker->to(type);
    head->to(type);
  }
};

inline double relative(const mlo::Tensors& a, const mlo::Tensors& b) {
  double gap = 0.0, size = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    gap += (a[i].to(at::kDouble) - b[i].to(at::kDouble)).square().sum().item<double>();
    size += b[i].to(at::kDouble).square().sum().item<double>();
  }
  return std::sqrt(gap / size);
}

inline double cosine(const mlo::Tensors& a, const mlo::Tensors& b) {
  double ab = 0.0, aa = 0.0, bb = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const at::Tensor x = a[i].to(at::kDouble), y = b[i].to(at::kDouble);
    ab += (x * y).sum().item<double>(), aa += x.square().sum().item<double>(),
        bb += y.square().sum().item<double>();
  }
  return ab / std::sqrt(aa * bb);
}
