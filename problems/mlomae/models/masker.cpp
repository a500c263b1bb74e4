#include "mlomae/models/masker.h"

#include "mlomae/message.h"
#include "mlomae/models/block.h"
#include "mlomae/models/positions.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <cmath>

namespace mlomae {
namespace {

using torch::nn::Linear;
using Map = std::function<at::Tensor(const at::Tensor&)>;

int64_t side_of(const MaskerOptions& o) {
  return std::llround(std::sqrt(static_cast<double>(o.patches)));
}

// Each of these makes its layers, as parts of the masker, and what is computed by them.

Linear output_layer(MaskerImpl& masker, int64_t inputs, int64_t outputs, bool zero) {
  Linear layer = masker.register_module("output_layer", Linear(inputs, outputs));
  if (zero) {
    torch::nn::init::zeros_(layer->weight);
    torch::nn::init::zeros_(layer->bias);
  }
  return layer;
}

// "first_hidden_layer.fc", as the parameter is called in the authors' code.
struct HiddenLayerImpl : torch::nn::Module {
  HiddenLayerImpl(int64_t inputs, int64_t outputs)
      : fc(register_module("fc", Linear(inputs, outputs))) {}
  Linear fc;
};
TORCH_MODULE(HiddenLayer);

Map on_image(MaskerImpl& masker, const MaskerOptions& o) {
  const HiddenLayer layer(o.patches * o.dim, o.hidden);
  masker.register_module("first_hidden_layer", layer);
  Linear hidden = layer->fc,
         output = output_layer(masker, o.hidden, o.scores * o.patches, o.zero_output);
  return [hidden, output, o](const at::Tensor& read) mutable {
    const at::Tensor scores = output->forward(at::relu(hidden->forward(read.flatten(1))));
    return scores.view({-1, o.scores, o.patches}).transpose(1, 2);
  };
}

Map by_convolution(MaskerImpl& masker, const MaskerOptions& o) {
  torch::nn::Conv2d around = masker.register_module(
      "around",
      torch::nn::Conv2d(torch::nn::Conv2dOptions(o.dim, o.hidden, /*kernel=*/3).padding(1)));
  Linear mix = masker.register_module("mix", Linear(2 * o.hidden, o.hidden)),
         output = output_layer(masker, o.hidden, o.scores, o.zero_output);
  return [around, mix, output, o, side = side_of(o)](const at::Tensor& read) mutable {
    const at::Tensor grid = read.transpose(1, 2).reshape({-1, o.dim, side, side});
    const at::Tensor a = at::relu(around->forward(grid)).flatten(2).transpose(1, 2);
    const at::Tensor b = a.mean(1, /*keepdim=*/true).expand_as(a);
    return output->forward(at::relu(mix->forward(at::cat({a, b}, 2))));
  };
}

Map by_attention(MaskerImpl& masker, const MaskerOptions& o) {
  require(o.hidden % 4 == 0,
          "masker.hidden = {}; it must be a multiple of 4 with masker.network = attention",
          o.hidden);
  const BlockOptions shape{.dim = o.hidden, .heads = o.hidden % 32 == 0 ? o.hidden / 32 : 1};
  Linear embed = masker.register_module("embed", Linear(o.dim, o.hidden));
  Block first = masker.register_module("block_0", Block(shape)),
        second = masker.register_module("block_1", Block(shape));
  torch::nn::LayerNorm norm = masker.register_module("norm", layer_norm(o.hidden));
  Linear output = output_layer(masker, o.hidden, o.scores, o.zero_output);
  // The whole tensor is kept: a view of it would stay behind on its device.
  const at::Tensor positions =
      masker.register_buffer("positions", sine_cosine_positions(o.hidden, side_of(o)));
  return [=](const at::Tensor& read) mutable {
    const at::Tensor x =
        embed->forward(read) + positions.narrow(1, 1, o.patches).to(read.scalar_type());
    return output->forward(norm->forward(second->forward(first->forward(x))));
  };
}

Map by_position(MaskerImpl& masker, const MaskerOptions& o) {
  at::Tensor table = masker.register_parameter("table", at::zeros({o.patches, o.scores}));
  if (!o.zero_output) torch::nn::init::normal_(table);
  return [table](const at::Tensor& read) { return table.expand({read.size(0), -1, -1}); };
}

Map mapped(MaskerImpl& masker, const MaskerOptions& options) {
  switch (options.network) {
    case Network::image: return on_image(masker, options);
    case Network::convolution: return by_convolution(masker, options);
    case Network::attention: return by_attention(masker, options);
    case Network::positions: return by_position(masker, options);
  }
  return {};
}

}  // namespace

MaskerImpl::MaskerImpl(const MaskerOptions& options) : map_(mapped(*this, options)) {}

}  // namespace mlomae
