#include "precompiled.h"

#include "hypergradient/note_error.h"
#include "mlo/error.h"
#include "mlo/hypergradient/method.h"
#include "tensors/described.h"
#include "text.h"

namespace mlo {
namespace {

Needs both(Needs a, const Needs& b) {
  a.trajectory |= b.trajectory;
  a.update_derivative |= b.update_derivative;
  a.optimizer_trajectory |= b.optimizer_trajectory;
  a.learning_rates |= b.learning_rates;
  a.kept_graph |= b.kept_graph;
  a.second_order |= b.second_order;
  a.analytic |= b.analytic;
  a.forward_mode |= b.forward_mode;
  a.differences |= b.differences;
  return a;
}

class Implicit final : public Method {
 public:
  Implicit(std::unique_ptr<Oracle> oracle, std::unique_ptr<Solver> solver, EvaluationPoint point)
      : oracle_(std::move(oracle)), solver_(std::move(solver)), point_(point) {
    require(oracle_ && solver_,
            "implicit(oracle, solver): the {} is null; give one, such as mlo::{}()",
            oracle_ ? "solver" : "oracle", oracle_ ? "identity_solver" : "exact_oracle");
  }

  std::string name() const override { return message("{} × {}", solver_->name(), oracle_->name()); }

  Needs needs() const override {
    Needs needs = both(oracle_->needs(), solver_->needs());
    if (point_ == EvaluationPoint::after_step)
      needs.kept_graph = false;  // that graph is of the point before
    return needs;
  }

  void visit(Visit& visit) override {
    const auto probe = visit.probe(visit.steps() - 1, point_);
    const auto linearization = oracle_->linearize(*probe, visit.targets());
    const LinearSystem system(*linearization, probe->record(), probe->parameters(), visit.level(),
                              visit.upper());
    const Tensors z = solver_->solve(system, visit.adjoint(), summary_);
    if (const std::string why = misfit(z, visit.adjoint(), /*zeros=*/false); !why.empty())
      refuse<Error>(
          "level {}: the solver {} returned {}; return the solution as one tensor for each of the "
          "right-hand side, of its shape",
          quoted(visit.level()), quoted(solver_->name()), why);
    visit.subtract(linearization->product(z, Linearization::Wrt::targets, /*last=*/true));
    note_error(summary_, linearization->error(), visit.level());
  }

  SolveSummary summary() const override { return summary_; }
  void save(State& state, const std::string& prefix) const override {
    solver_->save(state, prefix);
  }
  void load(const State& state, const std::string& prefix) override {
    solver_->load(state, prefix);
  }

 private:
  std::unique_ptr<Oracle> oracle_;
  std::unique_ptr<Solver> solver_;
  EvaluationPoint point_;
  SolveSummary summary_;
};

}  // namespace

Tensors LinearSystem::hessian(const Tensors& v) const {
  return widened(linearization_.product(v, Linearization::Wrt::own), parameters_);
}

const char* to_string(SolveSummary::Reason reason) {
  switch (reason) {
    case SolveSummary::Reason::none: return "nothing solved yet";
    case SolveSummary::Reason::direct: return "direct";
    case SolveSummary::Reason::converged: return "converged";
    case SolveSummary::Reason::iterations: return "iterations done";
    case SolveSummary::Reason::negative_curvature: return "negative curvature";
  }
  return "unknown";
}

std::unique_ptr<Method> implicit(std::unique_ptr<Oracle> oracle, std::unique_ptr<Solver> solver,
                                 EvaluationPoint point) {
  return std::make_unique<Implicit>(std::move(oracle), std::move(solver), point);
}

}  // namespace mlo
