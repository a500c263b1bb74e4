// Three ways to differentiate through a level that the library does not have, written outside of
// it:
//
//   DiagonalHessian  a Solver: H⁻¹ is replaced by the inverse of H's diagonal, estimated from
//   products with random signs
//                    (Hutchinson). Combined with the library's exact oracle by mlo::implicit.
//   OptimizerNeumann a Solver: the Neumann series with the optimizer's own step A = −∂θ'/∂g in
//   place of a number,
//                    z = Σ_j (I − A H)ʲ A a: what unrolling from a point that no longer moves
//                    gives.
//   SingleLoop       a Method of its own: one step of z ← z − η(Hz − a) at each visit, z carried
//   from one outer step to the next
//                    (the linear system of SOBA, Dagréou et al. 2022). H z and the mixed product
//                    come from one backward pass.
//
// They are tried beside the library's own on a penalty for each feature of a logistic regression,
// and each is checked: against the levels below solved anew, by differences.
//
// usage: own_method
#include <mlo/mlo.h>
#include <torch/torch.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

namespace {

// [solver]
class DiagonalHessian final : public mlo::Solver {
 public:
  explicit DiagonalHessian(double keep) : keep_(keep) {}
  std::string name() const override { return "diagonal"; }

  mlo::Tensors solve(const mlo::LinearSystem& system, const mlo::Tensors& a,
                     mlo::SolveSummary& summary) override {
    summary = {.reason = mlo::SolveSummary::Reason::direct, .iterations = 1};
    mlo::Tensors signs;
    for (const auto& tensor : a) signs.push_back(at::randint_like(tensor, 2).mul_(2).sub_(1));
    const mlo::Tensors product = system.hessian(signs);  // E[s ∘ Hs] = diag(H)
    const bool first = diagonal_.empty();
    mlo::Tensors z(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      const at::Tensor sample = signs[i] * product[i];
      if (first)
        diagonal_.push_back(sample);
      else
        diagonal_[i].lerp_(sample, 1.0 - keep_);
      z[i] = a[i] / diagonal_[i].abs().clamp_min(1e-3);
    }
    return z;
  }

  // What is remembered between the steps belongs into the checkpoint.
  void save(mlo::State& state, const std::string& prefix) const override {
    state.set(prefix + "tensors", static_cast<int64_t>(diagonal_.size()));
    for (std::size_t i = 0; i < diagonal_.size(); ++i)
      state.set(prefix + std::to_string(i), diagonal_[i].clone());
  }
  void load(const mlo::State& state, const std::string& prefix) override {
    diagonal_.resize(static_cast<std::size_t>(state.integer(prefix + "tensors")));
    for (std::size_t i = 0; i < diagonal_.size(); ++i)
      diagonal_[i] = state.tensor(prefix + std::to_string(i)).clone();
  }

 private:
  double keep_;
  mlo::Tensors diagonal_;
};
// [solver]

// [step]
class OptimizerNeumann final : public mlo::Solver {
 public:
  explicit OptimizerNeumann(int64_t terms) : terms_(terms) {}
  std::string name() const override { return "optimizer's Neumann"; }
  mlo::Needs needs() const override { return {.update_derivative = true}; }

  mlo::Tensors solve(const mlo::LinearSystem& system, const mlo::Tensors& a,
                     mlo::SolveSummary& summary) override {
    summary = {.reason = mlo::SolveSummary::Reason::iterations, .iterations = terms_};
    const mlo::StepDerivative& step = *system.record().derivative;
    mlo::Tensors term = step.apply(a), z = mlo::clone(term);
    for (int64_t j = 0; j < terms_; ++j) {
      mlo::add_scaled(term, step.apply(system.hessian(term)), -1.0);
      mlo::add_scaled(z, term);
    }
    return z;
  }

 private:
  int64_t terms_;
};
// [step]

// [method]
class SingleLoop final : public mlo::Method {
 public:
  explicit SingleLoop(double step) : step_(step) {}
  std::string name() const override { return "single loop × " + oracle_->name(); }
  mlo::Needs needs() const override { return oracle_->needs(); }

  void visit(mlo::Visit& visit) override {
    const mlo::Tensors& a = visit.adjoint();
    if (z_.empty()) z_ = mlo::zeros_like(a);
    const auto probe = visit.probe(visit.steps() - 1, mlo::EvaluationPoint::before_step);
    const auto linearization = oracle_->linearize(*probe, visit.targets());
    const mlo::Tensors products =
        linearization->product(z_, mlo::Linearization::Wrt::both, /*last=*/true);

    const auto own = static_cast<std::ptrdiff_t>(a.size());
    visit.subtract(mlo::Tensors(products.begin() + own, products.end()));
    mlo::Tensors residual = mlo::widened({products.begin(), products.begin() + own}, a);
    mlo::add_scaled(residual, a, -1.0);
    mlo::add_scaled(z_, residual, -step_);
    const double size = mlo::norm(a);
    summary_ = {.reason = mlo::SolveSummary::Reason::iterations,
                .iterations = 1,
                .residual = size > 0.0 ? mlo::norm(residual) / size : 0.0};
  }

  mlo::SolveSummary summary() const override { return summary_; }
  void save(mlo::State& state, const std::string& prefix) const override {
    state.set(prefix + "tensors", static_cast<int64_t>(z_.size()));
    for (std::size_t i = 0; i < z_.size(); ++i)
      state.set(prefix + std::to_string(i), z_[i].clone());
  }
  void load(const mlo::State& state, const std::string& prefix) override {
    z_.resize(static_cast<std::size_t>(state.integer(prefix + "tensors")));
    for (std::size_t i = 0; i < z_.size(); ++i)
      z_[i] = state.tensor(prefix + std::to_string(i)).clone();
  }

 private:
  double step_;
  std::unique_ptr<mlo::Oracle> oracle_ = mlo::exact_oracle();
  mlo::Tensors z_;
  mlo::SolveSummary summary_;
};
// [method]

struct Fit final : mlo::Problem {
  Fit(at::Tensor w, at::Tensor log_penalties)
      : Problem(mlo::trains(w)), w(w), log_penalties(log_penalties) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return at::binary_cross_entropy_with_logits(batch[0].matmul(w), batch[1]) +
           log_penalties.exp().dot(w.square());
  }
  at::Tensor w, log_penalties;
};

struct Penalties final : mlo::Problem {
  Penalties(at::Tensor log_penalties, at::Tensor w) : Problem(mlo::trains(log_penalties)), w(w) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return at::binary_cross_entropy_with_logits(batch[0].matmul(w), batch[1]);
  }
  at::Tensor w;
};

struct Row {
  mlo::Comparison comparison;
  double held_out_loss = 0.0, products = 0.0;
};

Row run(std::unique_ptr<mlo::Method> method) {
  torch::manual_seed(5);
  constexpr int64_t kFeatures = 20, kRows = 100;
  const at::Tensor mix =
      torch::eye(kFeatures, at::kDouble) + 0.15 * torch::randn({kFeatures, kFeatures}, at::kDouble);
  const at::Tensor truth = torch::randn({kFeatures}, at::kDouble) *
                           torch::arange(kFeatures).lt(5);  // five features matter
  const auto draw = [&] {
    const at::Tensor x = torch::randn({kRows, kFeatures}, at::kDouble).matmul(mix);
    return mlo::Batch{x,
                      (x.matmul(truth) + torch::randn({kRows}, at::kDouble)).gt(0).to(at::kDouble)};
  };
  const mlo::Batch train = draw(), held_out = draw();
  at::Tensor w = torch::zeros({kFeatures}, at::kDouble).requires_grad_();
  at::Tensor log_penalties = torch::full({kFeatures}, -3.0, at::kDouble).requires_grad_();

  // [register]
  mlo::Engine engine({.steps = 60});
  engine.add("fit", Fit(w, log_penalties),
             {.optimizer = mlo::sgd({.lr = 0.5}),
              .data = train,
              .unroll = 50,
              .best_response = std::move(method)});
  engine.add("penalties", Penalties(log_penalties, w),
             {.optimizer = mlo::adam({.lr = 0.05}), .data = held_out});
  engine.run();
  const mlo::CheckReport check = mlo::check_hypergradient(engine, {.resolve_steps = 500});
  // [register]
  return {*check.resolved, engine.loss("penalties"),
          static_cast<double>(engine.counters("fit").hessian_products) /
              static_cast<double>(engine.steps_taken())};
}

}  // namespace

int main() {
  at::set_num_threads(1);  // the tensors are small
  // [table]
  const std::vector<std::pair<const char*, std::function<std::unique_ptr<mlo::Method>()>>> methods =
      {
          {"one_step (library)", [] { return mlo::one_step(); }},
          {"cg (library)", [] { return mlo::cg(); }},
          {"diagonal (own solver)",
           [] {
             return mlo::implicit(mlo::exact_oracle(), std::make_unique<DiagonalHessian>(0.9));
           }},
          {"optimizer's Neumann (own)",
           [] {
             return mlo::implicit(mlo::exact_oracle(), std::make_unique<OptimizerNeumann>(20));
           }},
          {"single loop (own method)", [] { return std::make_unique<SingleLoop>(1.0); }},
      };
  // [table]
  std::printf(
      "hypergradient of 20 penalties, against the fit solved anew\n\n%-26s %14s %8s %23s %14s\n",
      "method", "relative error", "cosine", "Hessian products/step", "held-out loss");
  bool ok = true;
  for (const auto& [name, make] : methods) {
    const Row row = run(make());
    std::printf("%-26s %14.2e %8.4f %23.1f %14.4f\n", name, row.comparison.relative_error,
                row.comparison.cosine, row.products, row.held_out_loss);
    if (std::string_view(name).starts_with("single loop")) ok &= row.comparison.cosine > 0.99;
    if (std::string_view(name).starts_with("optimizer's")) ok &= row.comparison.cosine > 0.99;
    if (std::string_view(name).starts_with("diagonal")) ok &= row.comparison.cosine > 0.9;
  }
  std::printf("%s\n", ok ? "ok" : "not ok");
  return ok ? 0 : 1;
}
