// Regularized logistic regression of 20 features, 500 rows to train and 500 to validate on, full
// batch, unroll 1: one penalty a feature. Nothing in it takes long, so it shows what an engine
// costs by itself.
#include "case.h"

#include <ATen/ATen.h>
#include <mlo/mlo.h>
#include <torch/autograd.h>
#include <torch/optim/sgd.h>
#include <torch/utils.h>

#include <cmath>

namespace bench {
namespace {

constexpr int64_t kRows = 500, kFeatures = 20;
constexpr double kLowerRate = 0.5, kUpperRate = 0.1;

struct Numbers {
  Numbers() {
    torch::manual_seed(3);
    const auto truth = at::randn({kFeatures});
    const auto rows = [&](at::Tensor& data, at::Tensor& labels) {
      data = at::randn({kRows, kFeatures});
      labels = (data.matmul(truth) + at::randn({kRows}) > 0).to(at::kFloat);
    };
    rows(x, y);
    rows(held_x, held_y);
    w = at::zeros({kFeatures}).requires_grad_();
    penalty = at::full({kFeatures}, -3.0).requires_grad_();
  }
  at::Tensor x, y, held_x, held_y, w, penalty;
};

at::Tensor train_loss(const at::Tensor& x, const at::Tensor& y, const at::Tensor& w,
                      const at::Tensor& penalty) {
  return at::binary_cross_entropy_with_logits(x.mv(w), y) + 0.5 * (penalty.exp() * w * w).sum();
}
at::Tensor held_out_loss(const at::Tensor& x, const at::Tensor& y, const at::Tensor& w) {
  return at::binary_cross_entropy_with_logits(x.mv(w), y);
}

struct Fit : mlo::Problem {
  explicit Fit(const Numbers& n) : Problem(mlo::trains(n.w)), w(n.w), penalty(n.penalty) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return train_loss(batch[0], batch[1], w, penalty);
  }
  at::Tensor w, penalty;
};
struct Judge : mlo::Problem {
  explicit Judge(const Numbers& n) : Problem(mlo::trains(n.penalty)), w(n.w) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return held_out_loss(batch[0], batch[1], w);
  }
  at::Tensor w;
};

at::Tensor residual(const mlo::Batch& batch, const at::Tensor& w) {
  return (batch[0].mv(w).sigmoid() - batch[1]) / kRows;
}

// The derivatives written out. The engine only asks for the level's own parameters here, and for
// the other's products.
struct AnalyticFit final : Fit, mlo::AnalyticDerivatives {
  using Fit::Fit;
  std::optional<mlo::Evaluation> gradient(const mlo::Batch& batch, const mlo::Tensors& wrt,
                                          mlo::Tensors& out) override {
    const at::NoGradGuard no_grad;
    const at::Tensor decay = penalty.exp() * w;
    for (std::size_t i = 0; i < wrt.size(); ++i)
      out[i] = wrt[i].is_same(w) ? batch[0].t().mv(residual(batch, w)) + decay : 0.5 * decay * w;
    return mlo::Evaluation(zero);
  }
  mlo::Tensors product(const mlo::Batch& batch, const mlo::Tensors& v,
                       const mlo::Tensors& wrt) override {
    mlo::Tensors out;
    const at::Tensor decay = penalty.exp() * v[0];
    for (const auto& t : wrt) {
      if (!t.is_same(w)) {
        out.push_back(decay * w);
        continue;
      }
      const at::Tensor p = batch[0].mv(w).sigmoid();
      out.push_back(batch[0].t().mv(p * (1 - p) * batch[0].mv(v[0]) / kRows) + decay);
    }
    return out;
  }
  at::Tensor zero =
      at::zeros({});  // nobody reads the loss here, and by hand it is not computed either
};
struct AnalyticJudge final : Judge, mlo::AnalyticDerivatives {
  using Judge::Judge;
  std::optional<mlo::Evaluation> gradient(const mlo::Batch& batch, const mlo::Tensors& wrt,
                                          mlo::Tensors& out) override {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < wrt.size(); ++i)
      if (wrt[i].is_same(w)) out[i] = batch[0].t().mv(residual(batch, w));
    return mlo::Evaluation(zero);
  }
  mlo::Tensors product(const mlo::Batch&, const mlo::Tensors&, const mlo::Tensors& wrt) override {
    return mlo::Tensors(wrt.size());
  }
  at::Tensor zero = at::zeros({});
};

template <class Lower, class Upper>
Contestant by_engine(const std::string& method, std::unique_ptr<mlo::Method> best_response) {
  const Numbers n;
  auto engine = std::make_shared<mlo::Engine>();
  engine->add("fit", Lower(n),
              {.optimizer = mlo::sgd({.lr = kLowerRate}),
               .data = mlo::Batch{n.x, n.y},
               .best_response = std::move(best_response)});
  engine->add("judge", Upper(n),
              {.optimizer = mlo::sgd({.lr = kUpperRate}), .data = mlo::Batch{n.held_x, n.held_y}});
  return engine_contestant(method, std::move(engine));
}

// The same LibTorch calls without an engine.
struct ByHand {
  Numbers n;
  torch::optim::SGD lower{{n.w}, torch::optim::SGDOptions(kLowerRate)};
  torch::optim::SGD upper{{n.penalty}, torch::optim::SGDOptions(kUpperRate)};
  at::Tensor before = at::empty({kFeatures}), now = at::empty({kFeatures});

  // ∂L_val/∂w after the lower step.
  at::Tensor adjoint() {
    return torch::autograd::grad({held_out_loss(n.held_x, n.held_y, n.w)}, {n.w})[0];
  }
  void step(torch::optim::SGD& optimizer, at::Tensor& parameter, const at::Tensor& gradient) {
    parameter.mutable_grad() = gradient;
    optimizer.step();
  }
  void write(const at::Tensor& values) {
    const at::NoGradGuard no_grad;
    n.w.copy_(values);
  }

  void darts() {
    n.penalty.set_requires_grad(false);
    const auto g = torch::autograd::grad({train_loss(n.x, n.y, n.w, n.penalty)}, {n.w})[0];
    before.copy_(n.w.detach());
    step(lower, n.w, g);
    const at::Tensor z = adjoint() * kLowerRate;
    now.copy_(n.w.detach());
    n.w.set_requires_grad(false);
    n.penalty.set_requires_grad(true);
    const double epsilon =
        3e-3 * std::max(before.norm().item<double>(), 1e-9) / z.norm().item<double>();
    at::Tensor difference;
    for (const double side : {1.0, -1.0}) {
      write(before + side * epsilon * z);
      const auto d = torch::autograd::grad({train_loss(n.x, n.y, n.w, n.penalty)}, {n.penalty})[0];
      difference = side > 0 ? d : difference - d;
    }
    write(now);
    n.w.set_requires_grad(true);
    step(upper, n.penalty, difference / (-2 * epsilon));
  }

  void one_step() {
    const auto g =
        torch::autograd::grad({train_loss(n.x, n.y, n.w, n.penalty)}, {n.w}, {}, true, true)[0];
    before.copy_(n.w.detach());
    auto version = n.w.unsafeGetTensorImpl()->version_counter();
    const auto old = version.current_version();
    step(lower, n.w, g.detach());
    const at::Tensor z = adjoint() * kLowerRate;
    now.copy_(n.w.detach());
    write(before);
    version.set_version(old);
    const auto mixed = torch::autograd::grad({g}, {n.penalty}, {z})[0];
    write(now);
    step(upper, n.penalty, -mixed);
  }

  void analytic() {
    const at::NoGradGuard no_grad;
    const auto gradient = [this](const at::Tensor& x, const at::Tensor& y) {
      return x.t().mv((x.mv(n.w).sigmoid() - y) / kRows);
    };
    const auto g = gradient(n.x, n.y) + n.penalty.exp() * n.w;
    before.copy_(n.w);
    step(lower, n.w, g);
    const auto z = gradient(n.held_x, n.held_y) * kLowerRate;
    step(upper, n.penalty, -(n.penalty.exp() * z * before));
  }
};

Contestant by_hand(const std::string& method, void (ByHand::*step)()) {
  const auto hand = std::make_shared<ByHand>();
  return {method + " by hand",
          [hand, step](int64_t n) {
            for (int64_t i = 0; i < n; ++i) (hand.get()->*step)();
          },
          nullptr};
}

}  // namespace

Case logistic_case() {
  return {
      "logistic",
      "20 features, 500+500 rows, full batch, unroll 1; the engine against the same calls by hand",
      200, [](const std::string&) {
        std::vector<Contestant> all;
        all.push_back(by_engine<Fit, Judge>("darts", mlo::darts()));
        all.push_back(by_hand("darts", &ByHand::darts));
        all.push_back(by_engine<Fit, Judge>("one_step", mlo::one_step()));
        all.push_back(by_hand("one_step", &ByHand::one_step));
        all.push_back(by_engine<AnalyticFit, AnalyticJudge>(
            "analytic", mlo::implicit(mlo::analytic_oracle(), mlo::identity_solver())));
        all.push_back(by_hand("analytic", &ByHand::analytic));
        all.push_back(
            by_engine<Fit, Judge>("one_step, fresh graph", mlo::one_step({.keep_graph = false})));
        all.push_back(by_engine<Fit, Judge>("neumann, 5 terms",
                                            mlo::neumann({.iterations = 5, .step = 0.5})));
        all.push_back(by_engine<Fit, Judge>("cg, 5 iterations",
                                            mlo::cg({.max_iterations = 5, .tolerance = 0.0})));
        all.push_back(by_engine<Fit, Judge>("unrolled", mlo::unrolled()));
        return all;
      }};
}

}  // namespace bench
