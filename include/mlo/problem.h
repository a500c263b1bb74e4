#pragma once

#include "mlo/batch.h"
#include "mlo/tensors.h"

#include <concepts>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace torch::nn {
class Module;
}

#pragma GCC visibility push(default)
namespace mlo {

/// What a loss returns: the scalar to minimize, and if wanted named scalars to log.
struct Evaluation {
  Evaluation(at::Tensor scalar)
      : loss(std::move(scalar)) {}  // NOLINT(google-explicit-constructor): `return loss;`
  Evaluation(at::Tensor scalar, std::vector<std::pair<std::string, at::Tensor>> named)
      : loss(std::move(scalar)), metrics(std::move(named)) {}

  at::Tensor loss;  ///< zero-dimensional (or one element), floating point
  std::vector<std::pair<std::string, at::Tensor>> metrics;  ///< scalars; never differentiated
};

/// The parameters a level trains, and the modules its loss runs. Made by `trains(…)`.
class Trains {
 public:
  /// All parameters of a module; those with `requires_grad() == false` at registration are never
  /// trained. To train some only later, freeze them after Engine::add.
  void add(const std::shared_ptr<torch::nn::Module>& module);
  /// One tensor of the user's own, a leaf with requires_grad.
  void add(std::string name, at::Tensor parameter);

  /// Modules that the loss runs but that no level trains (a frozen teacher): their buffers, their
  /// frozen parameters and their train/eval mode are then put back by every probe, too; the values
  /// are in checkpoints.
  template <class... Things>
  Trains& uses(const Things&... things) {
    (uses_one(as_module(things)), ...);
    return *this;
  }

  const std::vector<std::pair<std::string, at::Tensor>>& parameters() const { return parameters_; }
  const std::vector<std::shared_ptr<torch::nn::Module>>& modules() const { return modules_; }

  /// A holder (TORCH_MODULE) or a shared pointer, as a module.
  template <class Thing>
  static std::shared_ptr<torch::nn::Module> as_module(const Thing& thing) {
    if constexpr (requires { thing.ptr(); }) {
      if (thing.is_empty()) return nullptr;  // refused by whoever asked
      return thing.ptr();
    } else {
      static_assert(std::convertible_to<const Thing&, std::shared_ptr<torch::nn::Module>>,
                    "trains(…) and uses(…) take module holders, shared pointers to modules and, "
                    "the first, tensors");
      return thing;
    }
  }

 private:
  void uses_one(std::shared_ptr<torch::nn::Module> module);

  std::vector<std::pair<std::string, at::Tensor>> parameters_;
  std::vector<std::shared_ptr<torch::nn::Module>> modules_;
};

/// What a level trains: module holders, shared pointers to modules and plain leaf tensors, in any
/// mixture. `Problem(trains(head))`, `Problem(trains(encoder, decoder))`,
/// `Problem(trains(log_weights))`.
template <class... Things>
Trains trains(const Things&... things) {
  Trains result;
  auto add = [&result](const auto& thing) {
    if constexpr (std::convertible_to<decltype(thing), at::Tensor>) {
      result.add("parameter" + std::to_string(result.parameters().size()), thing);
    } else {
      result.add(Trains::as_module(thing));
    }
  };
  (add(things), ...);
  return result;
}

/// One level: parameters θ_k and the loss L_k they are trained on. The smallest class a user writes
/// has a constructor and `loss`. Levels share modules by holding the same holder; they never refer
/// to each other, and no level knows how it is differentiated.
class Problem {
 public:
  explicit Problem(Trains trained) : trained_(std::move(trained)) {}
  virtual ~Problem() = default;

  /// L_k on one batch: a scalar (one element, floating point, on a graph that reaches θ_k), alone
  /// or with named metrics. Called with gradients on, in every evaluation, so it may take gradients
  /// itself (torch::autograd::grad: penalties, physics, an inner step); the engine switches
  /// requires_grad off for whatever it does not differentiate and the loss does not need, so no
  /// no-grad block is needed. Must give the same value when called again with the same parameters,
  /// buffers, batch and state of LibTorch's default generators (see `mlo::replayed` for discrete
  /// choices), and must not write parameters. Buffers (batch-norm statistics) may be written.
  virtual Evaluation loss(const Batch& batch) = 0;

  /// Numbers to judge by, on data the problem holds; called at each validation in eval mode and
  /// without gradients, with a random stream of its own. They are reported and can stop the run as
  /// "level.name".
  virtual std::map<std::string, double> validate() { return {}; }

  /// Called before the first of the `unroll` steps that the levels above wait for.
  virtual void on_inner_loop_start() {}
  /// Called with the total gradient (one tensor a parameter; undefined where unused) just before
  /// the optimizer reads it. It may be changed, and must keep number, shapes and types; that is not
  /// differentiated through. Hooks may write their own level's parameters.
  virtual void on_gradient(Tensors& /*gradient*/) {}
  /// Called after the optimizer's step.
  virtual void on_step() {}
  /// Called when this level's data has been gone through once more; `epoch` counts from 1.
  virtual void on_epoch(int64_t /*epoch*/) {}

  const Trains& trained() const { return trained_; }

 private:
  Trains trained_;
};

/// Derivatives that a problem knows in closed form: derive from `Problem` and from this. Both
/// functions are called with the random state and the `mlo::replayed` choices of the loss they
/// belong to, in the same order of calls. `check_hypergradient` holds them against automatic
/// differentiation.
class AnalyticDerivatives {
 public:
  virtual ~AnalyticDerivatives() = default;

  /// ∂(∇_θ L·v)/∂t for each tensor t of `wrt`, θ the problem's own parameters, v shaped like θ.
  /// `wrt` holds parameters of this level (a Hessian product) or of others (mixed products);
  /// recognize them with `is_same`.
  virtual Tensors product(const Batch& batch, const Tensors& v, const Tensors& wrt) = 0;

  /// ∂L/∂t for each t of `wrt` into `gradient`, and the loss; nullopt (the default): automatic
  /// differentiation is used.
  virtual std::optional<Evaluation> gradient(const Batch& /*batch*/, const Tensors& /*wrt*/,
                                             Tensors& /*gradient*/) {
    return std::nullopt;
  }
};

}  // namespace mlo
#pragma GCC visibility pop
