#include "precompiled.h"

#include "mlo/error.h"
#include "mlo/problem.h"

namespace mlo {

void Trains::add(const std::shared_ptr<torch::nn::Module>& module) {
  if (!module)
    throw ConfigError(
        "trains(…): a module holder is empty; construct the module before the problem");
  const std::string prefix = modules_.empty() ? "" : std::to_string(modules_.size()) + ".";
  for (const auto& item : module->named_parameters())
    parameters_.emplace_back(prefix + item.key(), item.value());
  modules_.push_back(module);
}

void Trains::add(std::string name, at::Tensor parameter) {
  if (!parameter.defined()) throw ConfigError("trains(…): the tensor '" + name + "' is undefined");
  if (!parameter.is_leaf())
    throw ConfigError(
        "trains(…): the tensor '" + name +
        "' is the result of a computation, not a leaf; pass x.detach().requires_grad_()");
  parameters_.emplace_back(std::move(name), std::move(parameter));
}

void Trains::uses_one(std::shared_ptr<torch::nn::Module> module) {
  if (!module)
    throw ConfigError("uses(…): a module holder is empty; construct the module before the problem");
  modules_.push_back(std::move(module));
}

}  // namespace mlo
