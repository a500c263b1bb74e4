#include "precompiled.h"

#include "mlo/error.h"
#include "mlo/problem.h"
#include "text.h"

namespace mlo {

void Trains::add(const std::shared_ptr<torch::nn::Module>& module) {
  require(module != nullptr,
          "trains(…): a module holder is empty; construct the module before the problem");
  const std::string prefix = modules_.empty() ? "" : message("{}.", modules_.size());
  for (const auto& item : module->named_parameters())
    parameters_.emplace_back(prefix + item.key(), item.value());
  modules_.push_back(module);
}

void Trains::add(std::string name, at::Tensor parameter) {
  require(parameter.defined(), "trains(…): the tensor {} is undefined; make it before the problem",
          mlo::quoted(name));
  require(parameter.is_leaf(),
          "trains(…): the tensor {} is the result of a computation, not a leaf; pass "
          "x.detach().requires_grad_()",
          mlo::quoted(name));
  parameters_.emplace_back(std::move(name), std::move(parameter));
}

void Trains::uses_one(std::shared_ptr<torch::nn::Module> module) {
  require(module != nullptr,
          "uses(…): a module holder is empty; construct the module before the problem");
  modules_.push_back(std::move(module));
}

}  // namespace mlo
