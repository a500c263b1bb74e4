#include "mlomae/models/head.h"

#include "mlomae/models/block.h"

#include <ATen/ATen.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

namespace mlomae {

namespace {

at::Tensor standardized(const at::Tensor& features) {
  const at::Tensor centred = features - features.mean(0, true);
  return centred / (centred.square().mean(0, true) + 1e-6).sqrt();
}

}  // namespace

HeadImpl::HeadImpl(const HeadOptions& options)
    : options_(options),
      norm_(options.norm == HeadNorm::layer ? register_module("fc_norm", layer_norm(options.dim))
                                            : nullptr),
      dropout_(register_module("head_drop", torch::nn::Dropout(options.dropout))),
      linear_(register_module("head", torch::nn::Linear(options.dim, options.classes))) {}

at::Tensor HeadImpl::forward(const at::Tensor& features) {
  return linear_->forward(
      dropout_->forward(norm_ ? norm_->forward(features) : standardized(features)));
}

}  // namespace mlomae
