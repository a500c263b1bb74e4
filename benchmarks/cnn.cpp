// A small convolutional network alone: what a step costs beyond LibTorch's own work.
#include "case.h"

#include <ATen/ATen.h>
#include <mlo/mlo.h>
#include <torch/autograd.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>
#include <torch/optim/sgd.h>
#include <torch/utils.h>

namespace bench {
namespace {

struct NetImpl : torch::nn::Module {
  NetImpl()
      : conv1(register_module("conv1",
                              torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 8, 5).stride(2)))),
        conv2(register_module("conv2",
                              torch::nn::Conv2d(torch::nn::Conv2dOptions(8, 16, 5).stride(2)))),
        head(register_module("head", torch::nn::Linear(256, 10))) {}
  at::Tensor forward(const at::Tensor& x) { return head(conv2(conv1(x).relu()).relu().flatten(1)); }
  torch::nn::Conv2d conv1, conv2;
  torch::nn::Linear head;
};
TORCH_MODULE(Net);

struct ClassifyByCnn final : mlo::Problem {
  explicit ClassifyByCnn(Net network) : Problem(mlo::trains(network)), net(std::move(network)) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return at::cross_entropy_loss(net(batch[0]), batch[1]);
  }
  Net net;
};

struct Setting {
  Setting() {
    torch::manual_seed(5);
    net = Net();
    x = at::randn({16, 1, 28, 28});
    y = at::randint(10, {16});
  }
  Net net{nullptr};
  at::Tensor x, y;
};

}  // namespace

Case cnn_case() {
  return {
      "cnn",
      "plain training of a small CNN (batch 16, 1x28x28), one level; the engine against the same "
      "calls by hand",
      20, [](const std::string&) {
        std::vector<Contestant> all;
        Setting s;
        auto engine = std::make_shared<mlo::Engine>();
        engine->add(
            "classify", ClassifyByCnn(s.net),
            {.optimizer = mlo::sgd({.lr = 0.01, .momentum = 0.9}), .data = mlo::Batch{s.x, s.y}});
        all.push_back(engine_contestant("plain", std::move(engine)));

        const auto hand = std::make_shared<Setting>();
        const auto parameters = hand->net->parameters();
        const auto optimizer = std::make_shared<torch::optim::SGD>(
            parameters, torch::optim::SGDOptions(0.01).momentum(0.9));
        all.push_back({"plain by hand",
                       [hand, parameters, optimizer](int64_t n) {
                         for (int64_t i = 0; i < n; ++i) {
                           const auto loss = at::cross_entropy_loss(hand->net(hand->x), hand->y);
                           auto gradient = torch::autograd::grad({loss}, parameters);
                           for (std::size_t p = 0; p < parameters.size(); ++p)
                             at::Tensor(parameters[p]).mutable_grad() = gradient[p];
                           optimizer->step();
                           if (!std::isfinite(loss.item<float>()))
                             throw std::runtime_error("not finite");
                         }
                       },
                       nullptr});
        return all;
      }};
}

}  // namespace bench
