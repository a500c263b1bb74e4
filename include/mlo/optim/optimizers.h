#pragma once

#include "mlo/tensors.h"

#include <functional>
#include <memory>

namespace torch::optim {
class Optimizer;
}

#pragma GCC visibility push(default)
namespace mlo {

/// Makes the optimizer of a level from the parameters it trains.
using OptimizerFactory =
    std::function<std::shared_ptr<torch::optim::Optimizer>(const Tensors& parameters)>;

struct SgdOptions {
  double lr = 0.1;
  double momentum = 0.0;
  double dampening = 0.0;
  double weight_decay = 0.0;
  /// false: parameters of less than two dimensions (biases, norms) are not decayed
  bool decay_vectors = true;
  bool nesterov = false;
};
/// torch::optim::SGD, by ATen's fused kernels: the same class and state, the same steps to
/// rounding.
OptimizerFactory sgd(SgdOptions options = {});

struct AdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  /// false: parameters of less than two dimensions (biases, norms) are not decayed
  bool decay_vectors = true;
};
/// torch::optim::Adam (weight decay added to the gradient), by ATen's fused kernels: the same class
/// and state, the same steps to rounding.
OptimizerFactory adam(AdamOptions options = {});
/// torch::optim::AdamW (decoupled weight decay), by ATen's fused kernels likewise.
OptimizerFactory adamw(AdamOptions options = {});

/// An optimizer of the user's own, parameter groups and all, over exactly the parameters of the
/// level. Any torch::optim::Optimizer whose step needs no closure.
OptimizerFactory use(std::shared_ptr<torch::optim::Optimizer> optimizer);

}  // namespace mlo
#pragma GCC visibility pop
