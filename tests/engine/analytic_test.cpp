#include "support.h"

namespace {

at::Tensor mask(const at::Tensor& x) { return at::bernoulli(at::full_like(x.detach(), 0.5)); }

// ½ Σ mᵢ (xᵢ − yᵢ²)² with a mask m drawn anew at each step, and its derivatives.
struct Masked final : mlo::Problem, mlo::AnalyticDerivatives {
  Masked(const at::Tensor& own, const at::Tensor& other)
      : Problem(mlo::trains(own)), x(own), y(other) {}

  Evaluation loss(const Batch&) override {
    return 0.5 * (mask(x) * (x - y.square()).square()).sum();
  }

  std::optional<Evaluation> gradient(const Batch&, const Tensors& wrt, Tensors& out) override {
    const at::NoGradGuard no_grad;
    const at::Tensor m = mask(x), residual = x - y.square();
    for (std::size_t i = 0; i < wrt.size(); ++i)
      out[i] = wrt[i].is_same(x) ? m * residual : -2.0 * m * residual * y;
    if (forget) out.pop_back();
    return Evaluation(0.5 * (m * residual.square()).sum());
  }

  Tensors product(const Batch&, const Tensors& v, const Tensors& wrt) override {
    const at::Tensor m = mask(x);
    if (misshapen) return Tensors(wrt.size(), at::ones({9}, at::kDouble));
    Tensors out;
    for (const auto& t : wrt) out.push_back(t.is_same(x) ? m * v[0] : -2.0 * m * y * v[0]);
    return out;
  }

  at::Tensor x, y;
  bool forget = false, misshapen = false;
};

struct Game {
  explicit Game(std::unique_ptr<mlo::Method> method) {
    low = engine.add("low", Masked(x, y), respond(std::move(method)));
    engine.add("top", lead(y, x), sgd());
  }
  at::Tensor x = leaf(std::vector<double>(32, 0.25)), y = leaf(std::vector<double>(32, 0.5));
  Engine engine{EngineOptions{}};
  std::shared_ptr<Masked> low;
};

double distance(const Tensors& a, const Tensors& b) {
  return (a[0] - b[0]).norm().item<double>() / b[0].norm().item<double>();
}

}  // namespace

TEST_CASE("Derivatives in closed form are given the draws of their loss", "[engine][analytic]") {
  Game known(mlo::implicit(mlo::analytic_oracle(), mlo::identity_solver())),
      automatic(mlo::one_step());
  for (int step = 0; step < 3; ++step) {
    CHECK(distance(known.engine.hypergradient("top"), automatic.engine.hypergradient("top")) <=
          1e-14);
    known.engine.step();
    automatic.engine.step();
  }
  CHECK(distance({known.x}, {automatic.x}) <= 1e-14);

  const auto report = mlo::check_hypergradient(known.engine);
  CHECK(report.steps_taken.relative_error <= 1e-7);
  REQUIRE(report.analytic.size() == 1);
  CHECK(report.analytic[0].product.relative_error <= 1e-14);
  REQUIRE(report.analytic[0].gradient);
  CHECK(report.analytic[0].gradient->relative_error <= 1e-14);
}

TEST_CASE("A gradient in closed form of the wrong length is refused", "[engine][analytic]") {
  Game game(mlo::implicit(mlo::analytic_oracle(), mlo::identity_solver()));
  game.low->forget = true;
  const std::string message = message_of<mlo::LossError>([&] { game.engine.step(); });
  CHECK_THAT(message, Contains("level 'low' at step 0") &&
                          Contains("made 0 tensors for 1 in wrt") && Contains("set one each"));
}

TEST_CASE("A product in closed form of another shape is refused", "[engine][analytic]") {
  Game game(mlo::implicit(mlo::analytic_oracle(), mlo::identity_solver()));
  game.low->misshapen = true;
  check_refused<mlo::LossError>(
      [&] { game.engine.step(); },
      {"level 'low'", "AnalyticDerivatives::product", "[9]", "[32] on cpu is wanted"});
}

TEST_CASE("A build that failed and is repeated begins with the first batch", "[engine]") {
  const auto run = [](bool fail) {
    const at::Tensor x = leaf();
    Engine engine({.seed = 4});
    engine.add("alone",
               Lambda(x,
                      [x, fail](const Batch& batch) mutable {
                        if (std::exchange(fail, false)) throw std::runtime_error("not yet");
                        return Evaluation((batch[0] - x).square().mean());
                      }),
               {.optimizer = mlo::sgd(),
                .data = mlo::tensor_source({at::arange(12, at::kDouble)}, {.batch_size = 3})});
    if (fail) CHECK_THROWS_AS(engine.build(), std::runtime_error);
    const State before = engine.state();
    CHECK(before.integer("level/alone/data/position") == 0);
    engine.step();
    return x.item<double>();
  };
  CHECK(run(true) == run(false));
}
