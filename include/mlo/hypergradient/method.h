#pragma once

#include "mlo/hypergradient/oracle.h"
#include "mlo/hypergradient/solver.h"
#include "mlo/state.h"
#include "mlo/tensors.h"

#include <memory>
#include <string>

#pragma GCC visibility push(default)
namespace mlo {

/// What a method sees when the sweep visits its level k: the adjoint a_k = ∂L_u/∂θ_k, the steps the
/// level took, and the levels that want their share.
class Visit {
 public:
  virtual ~Visit() = default;

  virtual const std::string& level() const = 0;
  /// The level u whose total derivative the sweep takes.
  virtual const std::string& upper() const = 0;
  /// a_k, one tensor a parameter of the level, float32 or wider.
  virtual const Tensors& adjoint() const = 0;
  /// Parameters of the upper level and of the responding levels that this one reads, in one list.
  virtual const Tensors& targets() const = 0;
  /// The adjoint of the targets: a_t ← a_t − products[t]. Undefined entries are zero.
  virtual void subtract(const Tensors& products) = 0;

  /// Recorded steps since the upper level's last step, oldest first; only the last one unless the
  /// method needs the trajectory.
  virtual std::size_t steps() const = 0;
  virtual const StepRecord& step(std::size_t i) const = 0;
  /// Opens the transaction in which the level's loss at that step can be evaluated: so that it can
  /// be differentiated twice, if the method's `needs` says so.
  virtual std::unique_ptr<Probe> probe(std::size_t i, EvaluationPoint point) = 0;
};

/// How the levels above differentiate through a level's optimization: its best response. Derive
/// from it for a method of your own; neither `Problem` nor `Engine` knows any method by name.
class Method {
 public:
  virtual ~Method() = default;
  virtual std::string name() const = 0;
  virtual Needs needs() const = 0;
  /// Takes visit.adjoint() through the level: subtracts from the targets' adjoints what the level's
  /// response contributes. Called with gradients off: whoever differentiates what a probe returns
  /// switches them on (at::AutoGradMode).
  virtual void visit(Visit& visit) = 0;
  /// Of the last visit.
  virtual SolveSummary summary() const { return {}; }
  virtual void save(State& /*state*/, const std::string& /*prefix*/) const {}
  virtual void load(const State& /*state*/, const std::string& /*prefix*/) {}
};

/// The implicit family: z = S(a), then targets −= (∂²L/∂t∂θ) z. Any oracle with any solver.
std::unique_ptr<Method> implicit(std::unique_ptr<Oracle> oracle, std::unique_ptr<Solver> solver,
                                 EvaluationPoint point = EvaluationPoint::before_step);

}  // namespace mlo
#pragma GCC visibility pop
