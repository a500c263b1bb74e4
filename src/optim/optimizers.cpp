#include "mlo/optim/optimizers.h"

#include "mlo/error.h"
#include "optim/fused.h"
#include "tensors/described.h"
#include "text.h"

#include <c10/util/Type.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <cmath>

#include <typeinfo>

namespace mlo {
namespace {

void require_not_negative(const char* field, double value) {
  require(std::isfinite(value) && value >= 0, "{} = {}; it must be finite and at least 0", field,
          value);
}
void require_beta(const char* field, double value) {
  require(value >= 0 && value < 1, "{} = {}; it must be at least 0 and less than 1", field, value);
}

void validate(const AdamOptions& options) {
  require_not_negative("AdamOptions::lr", options.lr);
  require_beta("AdamOptions::beta1", options.beta1);
  require_beta("AdamOptions::beta2", options.beta2);
  require_not_negative("AdamOptions::eps", options.eps);
  require_not_negative("AdamOptions::weight_decay", options.weight_decay);
}

// One group, or two where vectors are not decayed.
template <class Optimizer, class TorchOptions>
std::shared_ptr<torch::optim::Optimizer> grouped(const Tensors& parameters,
                                                 const TorchOptions& options, bool decay_vectors) {
  if (decay_vectors || options.weight_decay() == 0.0)
    return std::make_shared<Optimizer>(parameters, options);
  Tensors matrices, vectors;
  for (const at::Tensor& parameter : parameters)
    (parameter.dim() < 2 ? vectors : matrices).push_back(parameter);
  TorchOptions without = options;
  without.weight_decay(0.0);
  std::vector<torch::optim::OptimizerParamGroup> groups;
  if (!matrices.empty())
    groups.emplace_back(std::move(matrices), std::make_unique<TorchOptions>(options));
  if (!vectors.empty())
    groups.emplace_back(std::move(vectors), std::make_unique<TorchOptions>(without));
  return std::make_shared<Optimizer>(groups, options);
}

template <class Optimizer, class TorchOptions>
OptimizerFactory adam_factory(const AdamOptions& options) {
  validate(options);
  return [options](const Tensors& parameters) {
    return grouped<Optimizer>(parameters,
                              TorchOptions(options.lr)
                                  .betas({options.beta1, options.beta2})
                                  .eps(options.eps)
                                  .weight_decay(options.weight_decay),
                              options.decay_vectors);
  };
}

// A parameter that is missing would never be trained, a foreign one would be stepped on a gradient
// that is not this level's.
void check_groups(torch::optim::Optimizer& optimizer, const Tensors& parameters) {
  Tensors held;
  for (const auto& group : optimizer.param_groups()) {
    held.insert(held.end(), group.params().begin(), group.params().end());
  }
  const auto count_in = [](const Tensors& list, const at::Tensor& t) {
    return std::count_if(list.begin(), list.end(),
                         [&](const at::Tensor& other) { return other.is_same(t); });
  };
  std::string wrong;
  const auto add = [&wrong](const char* what, size_t i, const at::Tensor& tensor) {
    wrong += message("; {} {} of shape {}", what, i, shape_of(tensor.sizes()));
  };
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (const auto n = count_in(held, parameters[i]); n != 1) {
      add(n == 0 ? "missing is the level's parameter"
                 : "more than once there is the level's parameter",
          i, parameters[i]);
    }
  }
  for (size_t i = 0; i < held.size(); ++i) {
    if (count_in(parameters, held[i]) == 0) {
      add("foreign is the optimizer's parameter", i, held[i]);
    }
  }
  if (!wrong.empty())
    refuse<ConfigError>(
        "use({}): its parameter groups hold {} parameters, the level trains {}{}. The groups must "
        "hold exactly the parameters that the level trains, each once: make the optimizer from "
        "those, and freeze the others (requires_grad_(false)) before the problem is constructed",
        c10::demangle(typeid(optimizer).name()), held.size(), parameters.size(), wrong);
}

}  // namespace

OptimizerFactory sgd(SgdOptions options) {
  require_not_negative("SgdOptions::lr", options.lr);
  require_not_negative("SgdOptions::momentum", options.momentum);
  require(options.dampening >= 0 && options.dampening <= 1,
          "SgdOptions::dampening = {}; it must be between 0 and 1", options.dampening);
  require_not_negative("SgdOptions::weight_decay", options.weight_decay);
  require(!options.nesterov || options.momentum > 0,
          "SgdOptions::momentum = {}; it must be positive with nesterov", options.momentum);
  require(!options.nesterov || options.dampening == 0,
          "SgdOptions::dampening = {}; it must be 0 with nesterov", options.dampening);
  return [options](const Tensors& parameters) {
    return grouped<detail::FusedSgd>(parameters,
                                     torch::optim::SGDOptions(options.lr)
                                         .momentum(options.momentum)
                                         .dampening(options.dampening)
                                         .weight_decay(options.weight_decay)
                                         .nesterov(options.nesterov),
                                     options.decay_vectors);
  };
}

OptimizerFactory adam(AdamOptions options) {
  return adam_factory<detail::FusedAdam, torch::optim::AdamOptions>(options);
}

OptimizerFactory adamw(AdamOptions options) {
  return adam_factory<detail::FusedAdamW, torch::optim::AdamWOptions>(options);
}

OptimizerFactory use(std::shared_ptr<torch::optim::Optimizer> optimizer) {
  require(optimizer != nullptr,
          "use(optimizer): the optimizer is null; give a torch::optim::Optimizer over the level's "
          "parameters");
  require(dynamic_cast<torch::optim::LBFGS*>(optimizer.get()) == nullptr,
          "use(torch::optim::LBFGS): its step evaluates the loss through a closure, and a level "
          "takes one step from one gradient; use sgd(…), adam(…), adamw(…) or another optimizer "
          "whose step needs no closure");
  return [optimizer = std::move(optimizer)](const Tensors& parameters) {
    check_groups(*optimizer, parameters);
    return optimizer;
  };
}

}  // namespace mlo
