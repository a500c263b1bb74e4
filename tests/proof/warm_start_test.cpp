// Conjugate gradient through many outer steps of networks, whose Hessians are not definite: with
// its warm start it is never worse than without.
#include "engine/support.h"

#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>

#include <iostream>

using namespace mlo;

namespace {

struct Worst {
  double residual = 0.0;  // of solves that did not fail along the adjoint itself
  double ratio = 0.0;     // mean over the solves of log(residual warm / cold)
  int64_t solves = 0, negative = 0, at_once = 0;
};

// cg(), which at each visit solves without a warm start, too.
class BesideCold final : public Method {
 public:
  BesideCold(std::shared_ptr<Worst> worst, ConjugateGradientOptions options)
      : worst_(std::move(worst)) {
    warm_ = conjugate_gradient_solver(options);
    options.warm_start = false;
    cold_ = conjugate_gradient_solver(options);
  }
  std::string name() const override { return "beside cold"; }
  Needs needs() const override { return oracle_->needs(); }
  void visit(Visit& visit) override {
    const auto probe = visit.probe(visit.steps() - 1, EvaluationPoint::before_step);
    const auto linearization = oracle_->linearize(*probe, visit.targets());
    const LinearSystem system(*linearization, probe->record(), probe->parameters(), visit.level(),
                              visit.upper());
    SolveSummary cold;
    cold_->solve(system, visit.adjoint(), cold);
    const Tensors z = warm_->solve(system, visit.adjoint(), summary_);
    const bool at_once = summary_.residual > 1.0;
    worst_->at_once += at_once ? 1 : 0;
    if (at_once) CHECK(summary_.reason == SolveSummary::Reason::negative_curvature);
    if (!at_once) worst_->residual = std::max(worst_->residual, summary_.residual);
    worst_->negative += summary_.reason == SolveSummary::Reason::negative_curvature ? 1 : 0;
    worst_->ratio += std::log(std::max(summary_.residual, 1e-6) / std::max(cold.residual, 1e-6));
    ++worst_->solves;
    visit.subtract(linearization->product(z, Linearization::Wrt::targets, /*last=*/true));
  }
  SolveSummary summary() const override { return summary_; }

 private:
  std::shared_ptr<Worst> worst_;
  std::unique_ptr<Oracle> oracle_ = exact_oracle();
  std::unique_ptr<Solver> warm_, cold_;
  SolveSummary summary_;
};

// A network below, the logarithms of a penalty for each input above.
Worst train(int64_t inputs, int64_t hidden, at::ScalarType dtype, int64_t batch, int64_t steps) {
  torch::manual_seed(3);
  const int64_t rows = 256;
  const auto options = at::TensorOptions(dtype);
  const at::Tensor x = torch::randn({rows, inputs}, options),
                   xv = torch::randn({rows, inputs}, options);
  const auto target = [](const at::Tensor& in) {
    return (in.select(1, 0) * in.select(1, 1)).sin() + 0.3 * torch::randn_like(in.select(1, 0));
  };
  const at::Tensor y = target(x), yv = target(xv);
  torch::nn::Sequential net(torch::nn::Linear(inputs, hidden), torch::nn::Tanh(),
                            torch::nn::Linear(hidden, 1));
  net->to(dtype);
  const at::Tensor penalties = torch::full({inputs}, -6.0, options).requires_grad_();
  const at::Tensor first = net->parameters()[0];

  const auto worst = std::make_shared<Worst>();
  Engine engine;
  Lambda low(trains(net), [=](const Batch& b) mutable {
    return (net->forward(b[0]).squeeze(1) - b[1]).square().mean() +
           (penalties.exp() * first.square().sum(0)).sum();
  });
  engine.add("low", std::move(low),
             {.optimizer = adam({.lr = 1e-2}),
              .data = tensor_source({x, y}, {.batch_size = batch}),
              .unroll = 5,
              .best_response = std::make_unique<BesideCold>(worst, ConjugateGradientOptions{})});
  engine.add("up",
             Lambda(penalties,
                    [=](const Batch&) mutable {
                      return (net->forward(xv).squeeze(1) - yv).square().mean();
                    }),
             {.optimizer = adam({.lr = 1e-2})});
  for (int64_t i = 0; i < steps; ++i) engine.step();
  worst->ratio /= static_cast<double>(worst->solves);
  return *worst;
}

}  // namespace

TEST_CASE(
    "conjugate gradient stays sound where the Hessian is not definite, warm no worse than cold",
    "[warm]") {
  const char* asked = std::getenv("MLO_PROOF_STEPS");
  const int64_t steps = asked ? std::atoll(asked) : 60;
  for (const bool small : {true, false})
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
      for (const int64_t batch : {256, 32}) {
        const Worst worst =
            small ? train(3, 8, dtype, batch, steps) : train(20, 32, dtype, batch, steps);
        INFO((small ? "3-8-1, " : "20-32-1, ") << c10::toString(dtype) << ", batches of " << batch);
        if (std::getenv("MLO_PROOF_WORST"))
          std::cout << (small ? "3-8-1, " : "20-32-1, ") << c10::toString(dtype) << ", batches of "
                    << batch << ": residual <= " << worst.residual << ", warm over cold "
                    << std::exp(worst.ratio) << ", negative curvature " << worst.negative << " of "
                    << worst.solves << ", along the adjoint " << worst.at_once << "\n";
        CHECK(worst.residual <= 1.0);
        CHECK(worst.ratio <= 0.02);
        CHECK(worst.negative > 0);  // or the case shows nothing
      }
}

TEST_CASE("warm starts of levels above that take turns are apart, and of a state", "[warm]") {
  // Two tops with unlike losses over one level: with a warm start of its own, each begins where its
  // own last solve ended.
  torch::manual_seed(11);
  const at::Tensor a = torch::randn({30, 30}, at::kDouble),
                   h = a.matmul(a.t()) / 30 + 0.05 * torch::eye(30, at::kDouble);
  const at::Tensor one = torch::randn({30}, at::kDouble), two = torch::randn({30}, at::kDouble);
  const auto iterations = [&](bool warm, bool resumed) {
    const at::Tensor x = torch::zeros({30}, at::kDouble).requires_grad_();
    const at::Tensor s = leaf(0.5), t = leaf(-0.5);
    const auto build = [&](Engine& engine) {
      engine.add(
          "low",
          Lambda(x,
                 [=](const Batch&) { return 0.5 * x.dot(h.matmul(x)) - x.dot(s * one + t * two); }),
          {.optimizer = mlo::sgd({.lr = 1e-3}),
           .best_response = cg({.max_iterations = 200, .tolerance = 1e-8, .warm_start = warm})});
      LevelOptions first = sgd(1e-6), second = sgd(1e-6);
      first.top = second.top = true;
      engine.add("first",
                 Lambda(s, [=](const Batch&) { return x.dot(one) + 0.5 * s.square().sum(); }),
                 std::move(first));
      engine.add("second",
                 Lambda(t, [=](const Batch&) { return x.dot(two) + 0.5 * t.square().sum(); }),
                 std::move(second));
    };
    Engine engine;
    build(engine);
    for (int i = 0; i < 3; ++i) engine.step();
    if (!resumed) return engine.summary("low").iterations;
    Engine other;
    build(other);
    other.load_state(engine.state());
    other.step();
    return other.summary("low").iterations;
  };
  CHECK(iterations(false, false) > 10);
  CHECK(iterations(true, false) <= 1);
  CHECK(iterations(true, true) <= 1);
}

TEST_CASE("negative curvature is warned of once, by name, and a definite level says nothing",
          "[warm]") {
  for (const double curvature : {1.0, -0.5}) {
    const at::Tensor x = leaf({0.1, 0.2}), y = leaf({0.3, -0.4}),
                     c = torch::tensor({2.0, curvature}, at::kDouble);
    Engine engine({.steps = 4});
    engine.add("low", Lambda(x, [=](const Batch&) { return (0.5 * c * x.square() - x * y).sum(); }),
               respond(cg(), 1e-3));
    engine.add("up", Lambda(y, [=](const Batch&) { return (x - 1.0).square().sum(); }), sgd(1e-3));
    const auto watch = std::make_shared<Watch>();
    engine.add(watch);
    engine.run();
    if (curvature > 0.0) {
      CHECK(watch->warnings.empty());
    } else {
      REQUIRE(watch->warnings.size() == 1);
      CHECK_THAT(watch->warnings[0], Contains("level 'low'") && Contains("level 'up'") &&
                                         Contains("curvature <= 0") && Contains("damping"));
      CHECK_FALSE(engine.summary("low").warning.empty());
    }
  }
}
