#include "mlomae/models/head.h"

#include "mlomae/models/block.h"

#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

namespace mlomae {

HeadImpl::HeadImpl(const HeadOptions& options)
    : norm_(register_module("fc_norm", layer_norm(options.dim))),
      dropout_(register_module("head_drop", torch::nn::Dropout(options.dropout))),
      linear_(register_module("head", torch::nn::Linear(options.dim, options.classes))) {}

at::Tensor HeadImpl::forward(const at::Tensor& features) {
  return linear_->forward(dropout_->forward(norm_->forward(features)));
}

}  // namespace mlomae
