#pragma once

#include <mlo/data/images.h>
#include "mlomae/data/dataset.h"
#include "mlomae/models/masked_autoencoder.h"

#include <functional>
#include <string>
#include <vector>

namespace mlomae {

using Progress = std::function<void(int64_t done, int64_t total)>;

/// What the frozen encoder makes of images without crops and flips, float32 on the CPU.
struct Features {
  at::Tensor class_token;  ///< [N, dim]
  at::Tensor mean;         ///< [N, dim], the mean of the patches' tokens
  at::Tensor labels;       ///< int64 [N]
  const at::Tensor& of(const std::string& name) const {
    return name == "mean" ? mean : class_token;
  }
};
/// Of some rows of a set (none given: all of it), `batch` at a time, in evaluation mode.
Features features(MaskedAutoencoder mae, const mlo::ImageSet& images, std::vector<int64_t> rows,
                  const mlo::Augmentation& plain, int64_t batch, const Progress& progress = {});

}  // namespace mlomae
