// Two levels, with a user's headers and flags: w follows target, and target is trained until w
// is 3.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>

#include <ATen/ATen.h>

#include <mlo/mlo.h>

struct Follow final : mlo::Problem {
  Follow(at::Tensor w, at::Tensor target) : Problem(mlo::trains(w)), w(w), target(target) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return (batch[0] * (w - target).square()).sum();
  }
  at::Tensor w, target;
};

struct Reach final : mlo::Problem {
  Reach(at::Tensor target, at::Tensor w) : Problem(mlo::trains(target)), w(w) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override { return (w - batch[0]).square().sum(); }
  at::Tensor w;
};

// What the step did is there for a solver from outside: of SGD it is the learning rate, here the
// inverse of the Hessian.
struct OfStep final : mlo::Solver {
  std::string name() const override { return "of step"; }
  mlo::Needs needs() const override { return {.update_derivative = true}; }
  mlo::Tensors solve(const mlo::LinearSystem& system, const mlo::Tensors& a,
                     mlo::SolveSummary& summary) override {
    summary = {.reason = mlo::SolveSummary::Reason::direct};
    return system.record().derivative->apply(a);
  }
};

static_assert(!std::is_constructible_v<mlo::Probe, mlo::Levels&, mlo::Level&,
                                       const mlo::StepRecord&, mlo::EvaluationPoint, bool>,
              "a probe is made by Visit::probe");

int main() {
  at::Tensor w = at::zeros({1}, at::kDouble).requires_grad_(),
             target = at::zeros({1}, at::kDouble).requires_grad_();
  mlo::Engine engine({.steps = 50});
  engine.add("follow", Follow(w, target),
             {.optimizer = mlo::sgd({.lr = 0.5}),
              .data = mlo::Batch{at::ones({1}, at::kDouble)},
              .best_response = mlo::implicit(mlo::exact_oracle(), std::make_unique<OfStep>())});
  engine.add(
      "reach", Reach(target, w),
      {.optimizer = mlo::sgd({.lr = 0.3}), .data = mlo::Batch{at::full({1}, 3.0, at::kDouble)}});
  engine.run();
  const double reached = w.item<double>();
  std::printf("mlo %s: w = %.6f, to be 3\n", mlo::version(), reached);
  return std::strncmp(mlo::version(), "0.1.", 4) == 0 && std::abs(reached - 3.0) < 1e-6 ? 0 : 1;
}
