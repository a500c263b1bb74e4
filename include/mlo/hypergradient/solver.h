#pragma once

#include "mlo/hypergradient/oracle.h"
#include "mlo/state.h"
#include "mlo/step_record.h"
#include "mlo/tensors.h"

#include <cstdint>
#include <memory>
#include <string>

#pragma GCC visibility push(default)
namespace mlo {

/// Why and how a solve ended. Not converging is data, not an error.
struct SolveSummary {
  enum class Reason {
    none,               ///< nothing has been solved yet
    direct,             ///< no iteration: the identity
    converged,          ///< the tolerance was reached
    iterations,         ///< all iterations that were asked for were done
    negative_curvature  ///< vᵀHv ≤ 0 was met; the result is what had been reached
  };
  Reason reason = Reason::none;
  int64_t iterations = 0;
  double residual = 0.0;  ///< ‖Hz − a‖ / ‖a‖ where the solver knows it, else 0
  double error = 0.0;     ///< estimated relative error of the oracle's products; 0 where they are
                          ///< exact or no estimate is known
  std::string warning = {};  ///< what the user should know of this solve; the engine hands it to
                             ///< Callback::on_warning, once each
};
const char* to_string(SolveSummary::Reason reason);

/// H z = a, with H given by its products.
class LinearSystem {
 public:
  LinearSystem(Linearization& linearization, const StepRecord& record, const Tensors& parameters,
               std::string level, std::string upper = {})
      : linearization_(linearization),
        record_(record),
        parameters_(parameters),
        level_(std::move(level)),
        upper_(std::move(upper)) {}

  /// H v, in float32 or wider; zeros where H is zero by structure.
  Tensors hessian(const Tensors& v) const;
  const StepRecord& record() const { return record_; }
  const Tensors& parameters() const { return parameters_; }
  const std::string& level() const { return level_; }
  /// The level whose total derivative is being taken: `a` is an adjoint of its loss.
  const std::string& upper() const { return upper_; }

 private:
  Linearization& linearization_;
  const StepRecord& record_;
  const Tensors& parameters_;
  std::string level_;
  std::string upper_;
};

/// z ≈ H⁻¹ a. A solver serves one level and may remember (warm start); what it remembers is in its
/// state. Levels above whose sweeps come by in turn ask for different `a`: what it remembers of one
/// (LinearSystem::upper) is nothing to the others.
class Solver {
 public:
  virtual ~Solver() = default;
  virtual std::string name() const = 0;
  virtual Needs needs() const { return {}; }
  /// `a` and the result: one tensor a parameter, float32 or wider.
  virtual Tensors solve(const LinearSystem& system, const Tensors& a, SolveSummary& summary) = 0;
  virtual void save(State& /*state*/, const std::string& /*prefix*/) const {}
  virtual void load(const State& /*state*/, const std::string& /*prefix*/) {}
};

struct IdentityOptions {
  enum class Scale {
    optimizer,  ///< A = −∂(update)/∂g of the step really taken: one-step is then exact for unroll 1
    learning_rate,  ///< the learning rate of each parameter's group
    one,            ///< Betty's
    value           ///< `value`
  };
  Scale scale = Scale::optimizer;
  double value = 1.0;

  void validate() const;
};
/// z = A a: the level's optimum is replaced by its last step (T1-T2, DARTS; SAMA where A is
/// Adam's).
std::unique_ptr<Solver> identity_solver(IdentityOptions options = {});

struct NeumannOptions {
  int64_t iterations = 10;  ///< K: z = α Σ_{j=0..K} (I − αH)ʲ a
  /// α; 0: 1/λ with λ the largest eigenvalue of H by magnitude, from power iterations at each
  /// solve.
  double step = 0.0;
  int64_t power_iterations = 10;  ///< Hessian products spent on that estimate (step = 0)

  void validate() const;
};
/// Truncated Neumann series. Costs K Hessian products. A series whose given step overshoots (α λ >
/// 2) is an error that says so, not a result; an estimated step is then cut to what the overshoot
/// shows of λ, and the series begins anew. Negative curvature ends it and is in the summary.
std::unique_ptr<Solver> neumann_solver(NeumannOptions options = {});

struct ConjugateGradientOptions {
  int64_t max_iterations = 20;
  double tolerance = 1e-6;  ///< on ‖(H + damping·I) z − a‖ / ‖a‖
  double damping = 0.0;     ///< added to H's diagonal
  /// Begin with the z of the same upper level's last step, where that leaves a residual below
  /// ‖a‖/2. If curvature ≤ 0 is met then, the solve begins once more from zero, and the smaller
  /// residual counts.
  bool warm_start = true;

  void validate() const;
};
/// Conjugate gradients for symmetric H. Stops at the tolerance, at the iterations or at a direction
/// of curvature ≤ 0. Returns the last iterate, which has the least energy ½zᵀHz − zᵀa, while its
/// residual is at most ‖a‖ and all curvatures were positive. Else the combination of all iterates
/// with the smallest residual (minimal residual smoothing, Zhou and Walker 1994), which is below
/// ‖a‖; at curvature ≤ 0 along the very first direction, a itself, the step ‖a‖/‖Ha‖·a. These two
/// come with a warning, and a z from after curvature ≤ 0 starts no later solve.
std::unique_ptr<Solver> conjugate_gradient_solver(ConjugateGradientOptions options = {});

}  // namespace mlo
#pragma GCC visibility pop
