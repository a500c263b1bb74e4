#include "mlomae/models/masker.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

namespace mlomae {
namespace {

// "first_hidden_layer.fc", as the parameter is called in the authors' code.
struct HiddenLayerImpl : torch::nn::Module {
  HiddenLayerImpl(int64_t inputs, int64_t outputs)
      : fc(register_module("fc", torch::nn::Linear(inputs, outputs))) {}
  torch::nn::Linear fc;
};
TORCH_MODULE(HiddenLayer);

}  // namespace

MaskerImpl::MaskerImpl(const MaskerOptions& options) {
  const HiddenLayer layer(options.patches * options.dim, options.hidden);
  register_module("first_hidden_layer", layer);
  hidden_ = layer->fc;
  output_ = register_module("output_layer", torch::nn::Linear(options.hidden, options.patches));
  if (!options.zero_output) return;
  torch::nn::init::zeros_(output_->weight);
  torch::nn::init::zeros_(output_->bias);
}

at::Tensor MaskerImpl::forward(const at::Tensor& embedded) {
  return output_->forward(at::relu(hidden_->forward(embedded.flatten(1))));
}

}  // namespace mlomae
