// Levels that take each other as constants, and levels whose gradient is made by on_gradient.
#include "engine/support.h"

#include <mlo/graph.h>

#include <torch/optim/adam.h>

using mlo::ConfigError;
using mlo::LossError;

namespace {

/// A generator (scale and shift of noise) and a logistic discriminator of degree two.
struct Gan {
  at::Tensor g = leaf({0.5, 0.0}), d = leaf({0.1, 0.2, -0.1});
  at::Tensor noise = at::linspace(-2.0, 2.0, 9, at::kDouble),
             real = 1.5 * at::linspace(-2.0, 2.0, 9, at::kDouble) + 3.0;

  at::Tensor fake() const { return g[0] * noise + g[1]; }
  at::Tensor score(const at::Tensor& x) const { return d[0] + d[1] * x + 0.1 * d[2] * x.square(); }
  at::Tensor discriminator_loss(bool detached) const {
    const at::Tensor x = detached ? fake().detach() : fake();
    return at::softplus(-score(real)).mean() + at::softplus(score(x)).mean();
  }
  at::Tensor generator_loss() const { return at::softplus(-score(fake())).mean(); }
};

/// A level without hooks.
struct Plain final : mlo::Problem {
  Plain(const at::Tensor& trained, std::function<at::Tensor()> loss)
      : Problem(mlo::trains(trained)), function(std::move(loss)) {}
  Evaluation loss(const Batch&) override { return function(); }
  std::function<at::Tensor()> function;
};

}  // namespace

TEST_CASE(
    "A GAN is two levels that take each other as constants: the loop that people write by hand",
    "[engine][alternating]") {
  for (const bool detached : {true, false})
    for (const int64_t rounds : {1, 3}) {
      INFO("detached " << detached << ", rounds " << rounds);
      const Gan gan;
      Engine engine;
      LevelOptions disc{.optimizer = mlo::adam({.lr = 0.02}), .unroll = rounds};
      if (detached) disc.constant = {"gen"};
      engine.add(
          "disc",
          Lambda(gan.d, [gan, detached](const Batch&) { return gan.discriminator_loss(detached); }),
          std::move(disc));
      engine.add("gen", Lambda(gan.g, [gan](const Batch&) { return gan.generator_loss(); }),
                 {.optimizer = mlo::adam({.lr = 0.05}), .constant = {"disc"}});

      const Gan hand;
      torch::optim::Adam disc_optimizer({hand.d}, torch::optim::AdamOptions(0.02)),
          gen_optimizer({hand.g}, torch::optim::AdamOptions(0.05));
      for (int step = 0; step < 20; ++step) {
        engine.step();
        for (int64_t i = 0; i < rounds; ++i) {
          disc_optimizer.zero_grad();
          hand.discriminator_loss(true).backward();
          disc_optimizer.step();
        }
        gen_optimizer.zero_grad();
        hand.generator_loss().backward();
        gen_optimizer.step();
      }
      CHECK(at::allclose(gan.g, hand.g, 1e-10, 1e-12));
      CHECK(at::allclose(gan.d, hand.d, 1e-10, 1e-12));
      CHECK_FALSE(at::allclose(gan.g, leaf({0.5, 0.0})));
      CHECK(engine.counters("disc").steps == 20 * rounds);
      CHECK(engine.counters("disc").visits == 0);
    }
}

TEST_CASE("Constants schedule the levels below; who reads whom orders what they leave open",
          "[engine][alternating][graph]") {
  mlo::Graph graph;
  graph.nodes.resize(4);
  graph.nodes[3].reads = {1};
  graph.nodes[1].constants = {0};
  CHECK(graph.below(3) == std::vector<std::size_t>{0, 1});
  CHECK(graph.responding(3).empty());
  graph.nodes[0].reads = {2};
  CHECK(graph.below(3) == std::vector<std::size_t>{2, 0, 1});  // those that are used come first
  graph.nodes[2].constants = {1};  // now a circle: the reads say, then the order of the levels
  CHECK(graph.below(3) == std::vector<std::size_t>{1, 2, 0});
  graph.nodes[1].constants = {3};  // the level above, as a constant, is waited for by nobody
  CHECK(graph.below(3) == std::vector<std::size_t>{1});
  graph.nodes[1].top = true;
  CHECK(graph.below(3).empty());
}

TEST_CASE("A level without a graph makes its gradient in on_gradient", "[engine][alternating]") {
  // An evolution strategy on an accuracy: 'fit' follows λ, the top counts how many of its entries
  // round to 1.
  const at::Tensor x = leaf({0.2, 0.4}), lambda = leaf({0.5, 0.9});
  const auto accuracy = [=] { return -(x.round() == 1.0).to(at::kDouble).mean(); };
  const auto engine_with = [&](auto top, bool constant) {
    auto engine = std::make_unique<Engine>();
    engine->add("fit", follow(x, lambda), {.optimizer = mlo::sgd({.lr = 0.5}), .unroll = 2});
    LevelOptions options = sgd(0.1);
    if (constant) options.constant = {"fit"};
    engine->add("top", std::move(top), std::move(options));
    return engine;
  };
  Lambda top(lambda, [=](const Batch&) { return accuracy(); });
  top.gradient_hook = [](Tensors& gradient) {
    CHECK_FALSE(gradient[0].defined());
    gradient[0] = torch::tensor({1.0, -2.0}, at::kDouble);
  };
  const auto engine = engine_with(top, true);
  engine->step();
  engine->step();
  CHECK(at::allclose(lambda, leaf({0.3, 1.3})));
  CHECK(engine->counters("fit").steps == 4);
  CHECK(engine->loss("top") <= 0.0);

  // Nobody makes it: at the step; at build where no constant says that a graph may be missing.
  check_refused<LossError>([&] { engine_with(Plain(lambda, accuracy), true)->step(); },
                           {"level 'top' at step 0", "detached", "on_gradient"});
  top.gradient_hook = nullptr;
  check_refused<LossError>([&] { engine_with(top, true)->step(); },
                           {"level 'top' at step 0", "detached", "on_gradient"});
  check_refused<LossError>([&] { engine_with(Plain(lambda, accuracy), false)->build(); },
                           {"level 'top'", "detached", "on_gradient", "LevelOptions::constant"});

  // A loss that loses its graph later.
  bool cut = false;
  Engine later;
  later.add(
      "head",
      Plain(lambda,
            [&, lambda] { return cut ? lambda.detach().square().sum() : lambda.square().sum(); }),
      sgd());
  later.step();
  cut = true;
  check_refused<LossError>([&] { later.step(); },
                           {"level 'head' at step 1", "detached", "detach()", "no-grad"});

  // The level below is used, but neither a graph nor a small change of its parameters shows it.
  const auto flat = [=] { return accuracy() + 0.0 * lambda.sum(); };
  check_refused<ConfigError>([&] { engine_with(Plain(lambda, flat), false)->build(); },
                             {"level 'fit'", "did not change when", "piecewise constant",
                              "LevelOptions::constant = {\"fit\"}"});
  CHECK_NOTHROW(engine_with(Plain(lambda, flat), true)->step());
}
