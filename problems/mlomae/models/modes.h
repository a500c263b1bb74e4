#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <utility>
#include <vector>

namespace mlomae {

/// Keeps which of a model's modules are in train mode and which of its parameters require a
/// gradient, and puts both back, also when an exception passes.
class KeepModes {
 public:
  explicit KeepModes(const std::shared_ptr<torch::nn::Module>& model) {
    for (const auto& module : model->modules())
      training_.emplace_back(module, module->is_training());
    for (const at::Tensor& parameter : model->parameters())
      required_.emplace_back(parameter, parameter.requires_grad());
  }
  ~KeepModes() {
    // A module's mode is set with all below it, and those come later in the list.
    for (const auto& [module, training] : training_) module->train(training);
    for (const auto& [parameter, required] : required_) parameter.set_requires_grad(required);
  }
  KeepModes(const KeepModes&) = delete;
  KeepModes& operator=(const KeepModes&) = delete;

 private:
  std::vector<std::pair<std::shared_ptr<torch::nn::Module>, bool>> training_;
  std::vector<std::pair<at::Tensor, bool>> required_;
};

}  // namespace mlomae
