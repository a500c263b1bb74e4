// The steps of SGD, Adam and AdamW written out as functions, so that autograd can differentiate
// them: the second opinion that UpdateRule is held against. The steps themselves are held against
// torch::optim.
#pragma once

#include "mlo/optim/optimizers.h"

#include <ATen/ATen.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/sgd.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace mlo::testing {

inline const at::TensorOptions kDouble = at::kDouble;

/// The options of one parameter group, for whichever class of optimizer.
struct Group {
  double lr = 0.1, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;
  double beta1 = 0.9, beta2 = 0.99, eps = 1e-2;
};

enum class Kind { sgd, adam, adamw };

/// An optimizer over two parameters: both in the first group, or one in each.
struct Setup {
  std::string name;
  Kind kind;
  std::vector<Group> groups;

  const Group& group(size_t parameter) const { return groups[groups.size() == 1 ? 0 : parameter]; }
};

inline std::vector<Setup> setups() {
  return {
      {"SGD", Kind::sgd, {{}}},
      {"SGD weight decay", Kind::sgd, {{.weight_decay = 0.3}}},
      {"SGD momentum", Kind::sgd, {{.momentum = 0.9}}},
      {"SGD dampening", Kind::sgd, {{.momentum = 0.9, .dampening = 0.4, .weight_decay = 0.2}}},
      {"SGD full dampening", Kind::sgd, {{.momentum = 0.9, .dampening = 1.0}}},
      {"SGD nesterov", Kind::sgd, {{.momentum = 0.8, .weight_decay = 0.1, .nesterov = true}}},
      {"SGD two groups",
       Kind::sgd,
       {{.lr = 0.2}, {.lr = 0.05, .momentum = 0.7, .weight_decay = 0.1}}},
      {"Adam", Kind::adam, {{}}},
      {"Adam weight decay", Kind::adam, {{.weight_decay = 0.2}}},
      {"Adam two groups",
       Kind::adam,
       {{.lr = 0.2}, {.lr = 0.05, .weight_decay = 0.1, .beta1 = 0.5, .beta2 = 0.9, .eps = 1e-3}}},
      {"AdamW", Kind::adamw, {{.weight_decay = 0.2}}},
      {"AdamW two groups",
       Kind::adamw,
       {{.weight_decay = 0.3, .beta1 = 0.0}, {.lr = 0.03, .beta2 = 0.95}}},
  };
}

template <class Options>
std::vector<torch::optim::OptimizerParamGroup> param_groups(const Setup& setup,
                                                            const Tensors& parameters,
                                                            Options (*make)(const Group&)) {
  std::vector<torch::optim::OptimizerParamGroup> result;
  if (setup.groups.size() == 1) {
    result.emplace_back(parameters, std::make_unique<Options>(make(setup.groups[0])));
  } else {
    for (size_t i = 0; i < parameters.size(); ++i) {
      result.emplace_back(Tensors{parameters[i]}, std::make_unique<Options>(make(setup.groups[i])));
    }
  }
  return result;
}

template <class Options>
Options adam_options(const Group& g) {
  return Options(g.lr).betas({g.beta1, g.beta2}).eps(g.eps).weight_decay(g.weight_decay);
}
inline torch::optim::SGDOptions sgd_options(const Group& g) {
  return torch::optim::SGDOptions(g.lr)
      .momentum(g.momentum)
      .dampening(g.dampening)
      .weight_decay(g.weight_decay)
      .nesterov(g.nesterov);
}

inline std::shared_ptr<torch::optim::Optimizer> make_optimizer(const Setup& setup,
                                                               const Tensors& parameters) {
  namespace optim = torch::optim;
  switch (setup.kind) {
    case Kind::sgd:
      return std::make_shared<optim::SGD>(param_groups(setup, parameters, sgd_options),
                                          optim::SGDOptions(0.1));
    case Kind::adam:
      return std::make_shared<optim::Adam>(
          param_groups(setup, parameters, adam_options<optim::AdamOptions>));
    case Kind::adamw: break;
  }
  return std::make_shared<optim::AdamW>(
      param_groups(setup, parameters, adam_options<optim::AdamWOptions>));
}

/// One optimizer over several parameters, as a function: gradients may be undefined (skipped).
/// `guarded`: with a square root that autograd differentiates to 0 at 0, not to infinity.
class FunctionalUpdate {
 public:
  FunctionalUpdate(const Setup& setup, size_t parameters, bool guarded = false)
      : setup_(setup), guarded_(guarded), m_(parameters), v_(parameters), t_(parameters, 0) {}

  double rate = 1;  ///< factor on the learning rates, from a schedule

  /// Holds the moments as they are: autograd goes back no further.
  void detach() {
    for (Tensors* moments : {&m_, &v_})
      for (auto& each : *moments)
        if (each.defined()) each = each.detach();
  }

  Tensors operator()(const Tensors& theta, const Tensors& gradients) {
    Tensors result = theta;
    for (size_t i = 0; i < theta.size(); ++i) {
      if (gradients[i].defined()) {
        ++t_[i];
        result[i] = setup_.kind == Kind::sgd ? sgd(i, theta[i], gradients[i])
                                             : adam(i, theta[i], gradients[i]);
      }
    }
    return result;
  }

 private:
  at::Tensor sgd(size_t i, const at::Tensor& theta, const at::Tensor& g) {
    const Group& o = setup_.group(i);
    const auto d = g + o.weight_decay * theta;
    if (o.momentum == 0) {
      return theta - rate * o.lr * d;
    }
    m_[i] = t_[i] == 1 ? d : o.momentum * m_[i] + (1 - o.dampening) * d;
    return theta - rate * o.lr * (o.nesterov ? d + o.momentum * m_[i] : m_[i]);
  }

  at::Tensor adam(size_t i, const at::Tensor& theta, const at::Tensor& g) {
    const Group& o = setup_.group(i);
    const bool decoupled = setup_.kind == Kind::adamw;
    const auto d = decoupled ? g : g + o.weight_decay * theta;
    const bool first = t_[i] == 1;
    m_[i] = (first ? at::zeros_like(d) : o.beta1 * m_[i]) + (1 - o.beta1) * d;
    v_[i] = (first ? at::zeros_like(d) : o.beta2 * v_[i]) + (1 - o.beta2) * d * d;
    const double time = static_cast<double>(t_[i]);
    const auto m_hat = m_[i] / (1 - std::pow(o.beta1, time));
    const auto v_hat = v_[i] / (1 - std::pow(o.beta2, time));
    const auto s = guarded_ ? at::where(v_hat > 0, at::sqrt(at::where(v_hat > 0, v_hat, 1.0)), 0.0)
                            : at::sqrt(v_hat);
    return (decoupled ? (1 - rate * o.lr * o.weight_decay) : 1.0) * theta -
           rate * o.lr * m_hat / (s + o.eps);
  }

  Setup setup_;
  bool guarded_;
  Tensors m_, v_;
  std::vector<int64_t> t_;
};

/// Gradients scaled down to a joint norm of at most `largest`; 0: as they are.
inline Tensors clipped(const Tensors& gradients, double largest) {
  at::Tensor square = at::zeros({}, at::kDouble);
  for (const auto& g : gradients) {
    square = g.defined() ? square + (g * g).sum() : square;
  }
  if (largest == 0 || square.item<double>() <= largest * largest) {
    return gradients;
  }
  Tensors result = gradients;
  for (auto& g : result) {
    g = g.defined() ? g * (largest / square.sqrt()) : g;
  }
  return result;
}

inline void set_gradients(const Tensors& parameters, const Tensors& gradients) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    at::Tensor(parameters[i]).mutable_grad() = gradients[i];
  }
}

/// ‖a − b‖/‖b‖ over all tensors; ‖a‖ where b is zero.
inline double relative_error(const Tensors& a, const Tensors& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto x = a[i].detach().to(at::kDouble), y = b[i].detach().to(at::kDouble);
    difference += (x - y).square().sum().item<double>();
    size += y.square().sum().item<double>();
  }
  return std::sqrt(difference) / (size == 0 ? 1.0 : std::sqrt(size));
}

}  // namespace mlo::testing
