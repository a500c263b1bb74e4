// A level in bfloat16: what is computed in it, what stays float32, what is refused.
#include <ATen/autocast_mode.h>

#include "engine/support.h"

namespace {

struct Net {
  at::Tensor w1, w2, decay;
  at::Tensor x, y;
  Net() {
    torch::manual_seed(4);
    w1 = (0.3 * torch::randn({16, 32})).requires_grad_();
    w2 = (0.3 * torch::randn({32, 1})).requires_grad_();
    decay = torch::zeros({32}).requires_grad_();
    x = torch::randn({64, 16});
    y = torch::randn({64, 1});
  }
};

// Trains w1, w2 under a learned decay of w2. Products in bfloat16 are counted.
struct Run {
  Net net;
  Engine engine;
  int* narrow = nullptr;
  explicit Run(mlo::Precision precision, std::unique_ptr<mlo::Method> method = mlo::one_step(),
               bool convert = true, int* seen = nullptr)
      : engine({.steps = 5}) {
    const Net n = net;
    engine.add("low",
               Lambda(mlo::trains(n.w1, n.w2),
                      [n, convert, seen](const Batch&) {
                        const at::Tensor out = n.x.matmul(n.w1).tanh().matmul(n.w2);
                        if (seen && out.scalar_type() == at::kBFloat16) ++*seen;
                        const at::Tensor loss = ((convert ? out.to(at::kFloat) : out) -
                                                 (convert ? n.y : n.y.to(at::kBFloat16)))
                                                    .square()
                                                    .mean();
                        return convert ? loss + (n.decay.exp() * n.w2.squeeze(1).square()).sum()
                                       : loss;
                      }),
               {.optimizer = mlo::adamw({.lr = 0.01}),
                .best_response = std::move(method),
                .precision = precision});
    engine.add("up",
               Lambda(mlo::trains(n.decay),
                      [n](const Batch&) {
                        return (n.x.matmul(n.w1).tanh().matmul(n.w2) - n.y).square().mean();
                      }),
               {.optimizer = mlo::sgd({.lr = 0.1})});
  }
};

double cosine(const at::Tensor& a, const at::Tensor& b) {
  return (a.dot(b) / (a.norm() * b.norm())).item<double>();
}

}  // namespace

TEST_CASE("A level in bfloat16 computes products in it, and keeps float32 for all else",
          "[engine][precision]") {
  int narrow = 0, wide = 0;
  Run half(mlo::Precision::bfloat16, mlo::one_step(), true, &narrow),
      full(mlo::Precision::float32, mlo::one_step(), true, &wide);
  const at::Tensor g = half.engine.hypergradient("up")[0],
                   expected = full.engine.hypergradient("up")[0];
  CHECK(g.scalar_type() == at::kFloat);
  CHECK(narrow > 0);
  CHECK(wide == 0);
  CHECK(cosine(g, expected) > 0.999);  // bfloat16 has 8 bits
  CHECK_FALSE(at::equal(g, expected));
  half.engine.run();
  CHECK(half.net.w1.scalar_type() == at::kFloat);
  CHECK_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
  // The parameters of each step are the ones used: with a stale cache of converted weights the loss
  // would stand still.
  Run other(mlo::Precision::float32);
  other.engine.hypergradient("up");
  other.engine.run();
  CHECK(half.engine.loss("low") == Approx(other.engine.loss("low")).epsilon(0.02));
  const double first = half.engine.loss("low");
  half.engine.step();
  CHECK(half.engine.loss("low") != first);
}

TEST_CASE("Reverse over forward works in bfloat16, and differences are refused",
          "[engine][precision]") {
  Run exact(mlo::Precision::float32);
  Run duals(mlo::Precision::bfloat16,
            mlo::implicit(mlo::reverse_over_forward_oracle(), mlo::identity_solver()));
  CHECK(cosine(duals.engine.hypergradient("up")[0], exact.engine.hypergradient("up")[0]) > 0.999);
  Run differences(mlo::Precision::bfloat16, mlo::darts());
  check_refused<mlo::UnsupportedError>(
      [&] { differences.engine.build(); },
      {"level 'low'", "bfloat16", "LevelOptions::precision", "mlo::one_step()"});
  Run raw(mlo::Precision::bfloat16, mlo::one_step(), /*convert=*/false);
  check_refused<mlo::LossError>([&] { raw.engine.build(); },
                                {"level 'low'", "BFloat16", "float32"});
  CHECK_FALSE(at::autocast::is_autocast_enabled(at::kCPU));

  const at::Tensor w = torch::zeros({2}, at::kDouble).requires_grad_();
  Engine engine;
  check_refused<mlo::ConfigError>(
      [&] {
        engine.add("low", Lambda(mlo::trains(w), [w](const Batch&) { return w.square().sum(); }),
                   {.optimizer = mlo::sgd({.lr = 0.1}), .precision = mlo::Precision::bfloat16});
      },
      {"level 'low'", "precision", "parameter0", "Double"});
}

TEST_CASE("A run in bfloat16 is resumed to the bit", "[engine][precision]") {
  Run whole(mlo::Precision::bfloat16), first(mlo::Precision::bfloat16),
      second(mlo::Precision::bfloat16);
  for (int i = 0; i < 4; ++i) whole.engine.step();
  for (int i = 0; i < 2; ++i) first.engine.step();
  second.engine.load_state(first.engine.state());
  for (int i = 0; i < 2; ++i) second.engine.step();
  CHECK(at::equal(whole.net.w1, second.net.w1));
  CHECK(at::equal(whole.net.decay, second.net.decay));
}
