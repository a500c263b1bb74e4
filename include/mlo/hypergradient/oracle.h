#pragma once

#include "mlo/hypergradient/probe.h"
#include "mlo/tensors.h"

#include <memory>
#include <string>

#pragma GCC visibility push(default)
namespace mlo {

/// What a method needs of the level it serves; the engine records no more than that, and refuses by
/// name what cannot be had.
struct Needs {
  bool trajectory = false;  ///< every step since the upper level's last one, not only the last
  bool update_derivative = false;  ///< the optimizer's update must be one whose derivative is known
  bool optimizer_trajectory = false;  ///< ... with the optimizer's moments at each step
  bool learning_rates = false;        ///< of each parameter, at the step
  bool kept_graph = false;            ///< the graph of ∇L of the recorded steps
  bool second_order = false;          ///< the loss is differentiated twice by autograd
  /// the loss is evaluated on dual numbers, and its tangent differentiated
  bool forward_mode = false;
  bool analytic = false;  ///< the problem has AnalyticDerivatives
  /// the loss is compared at near parameters: it must be computed in float32 or wider
  bool differences = false;
};

/// Derivatives of a level's gradient at one of its steps.
class Linearization {
 public:
  virtual ~Linearization() = default;

  enum class Wrt {
    own,      ///< H v = (∂²L/∂θ∂θ) v, shaped like θ
    targets,  ///< (∂²L/∂t∂θ) v for each target t
    both      ///< first H v, then the targets' products, in one list
  };
  /// The product with v (shaped like θ, float32 or wider), mean over the micro-batches. A product
  /// that is zero by structure may come back as an undefined tensor. `last`: no other product
  /// follows, graphs may be freed on the way.
  virtual Tensors product(const Tensors& v, Wrt wrt, bool last = false) = 0;
  /// Estimated relative error of the products so far, the largest; 0 where they are exact or no
  /// estimate is known.
  virtual double error() const { return 0.0; }
};

/// How products with second derivatives of a level's loss are computed.
class Oracle {
 public:
  virtual ~Oracle() = default;
  virtual std::string name() const = 0;
  virtual Needs needs() const = 0;
  /// At the probe's recorded step. `targets`: the parameters of other levels that want a mixed
  /// product. The linearization lives no longer than the probe and the list.
  virtual std::unique_ptr<Linearization> linearize(Probe& probe, const Tensors& targets) const = 0;
};

struct ExactOptions {
  /// Use the graph that the level's last own step has built, instead of evaluating the loss again:
  /// saves a forward and a backward for each hypergradient, keeps that step's activations until
  /// then.
  bool keep_graph = true;
};
/// Automatic differentiation: g = ∇L with graph, then one backward of g·v to θ and all targets
/// together. One product: 1 backward on the kept graph, else 1 forward and 2 backwards; each
/// further one 1 backward.
std::unique_ptr<Oracle> exact_oracle(ExactOptions options = {});

struct FiniteDifferenceOptions {
  enum class Radius {
    relative,  ///< ε = c / max over tensors of rms(v_t) / max(rms(θ_t), 0.1·rms(θ)), rms(v_t) over
               ///< its entries that are not zero
    norm  ///< ε = c / ‖v‖ (Betty's, with c = 0.01)
  };
  /// c of the radius; 0 means 3e-3, or 1e-5 where level and targets are in float64 (relative), 0.01
  /// (norm).
  double constant = 0.0;
  Radius radius = Radius::relative;

  void validate() const;
};
/// Central differences D(ε) = [∇L(θ+εv) − ∇L(θ−εv)] / 2ε: two first-order passes a product, more
/// where one radius will not do for all of v (docs/methods.md); to the targets only; for every loss
/// that has a gradient. Refuses types below float32.
std::unique_ptr<Oracle> finite_difference_oracle(FiniteDifferenceOptions options = {});
/// ‖D(ε) − D(2ε)‖ / 3 over all products: estimates the error of D(ε). Costs four first-order passes
/// a part.
double finite_difference_error(Probe& probe, const Tensors& targets, const Tensors& v,
                               FiniteDifferenceOptions options = {});

/// Dual numbers: the loss is evaluated once at θ + εv, its tangent is ∇_θL·v, and one backward of
/// that gives the products; exact. Nothing is stored for what the targets do not reach, so it is
/// the oracle for targets that enter a loss late (weights of its terms). Where the targets come
/// through an operation whose forward derivative LibTorch does not differentiate right (layer norm,
/// softmax, cross entropy, batch norm, attention, …) it refuses, when the engine is built, and
/// names the operation; Hessian products pass through the whole network and are refused with it.
std::unique_ptr<Oracle> reverse_over_forward_oracle();

/// The problem's own `AnalyticDerivatives`: no graph at all.
std::unique_ptr<Oracle> analytic_oracle();

}  // namespace mlo
#pragma GCC visibility pop
