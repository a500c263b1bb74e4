// Lower losses with dropout, batch normalization and discrete choices: every oracle differentiates
// the very draw of the step, and evaluating leaves no trace.
#include "mlo/hypergradient/presets.h"
#include "mlo/replayed.h"
#include "quadratic.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/autograd.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/utils.h>

#include "catch.h"

#include <iostream>

using namespace mlo;
using namespace mlo::testing;

namespace {

constexpr int64_t kRows = 2000;

const at::TensorOptions kDouble = at::kDouble;

enum class Randomness { dropout, batch_norm, top_k, top_k_recomputed };

torch::nn::Sequential make_net(Randomness kind) {
  torch::manual_seed(3);
  torch::nn::Sequential net(torch::nn::Linear(4, 16), torch::nn::Tanh());
  if (kind == Randomness::dropout) net->push_back(torch::nn::Dropout(0.1));
  if (kind == Randomness::batch_norm) net->push_back(torch::nn::BatchNorm1d(16));
  net->push_back(torch::nn::Linear(16, 16));
  net->push_back(torch::nn::Tanh());
  if (kind == Randomness::dropout) net->push_back(torch::nn::Dropout(0.1));
  net->push_back(torch::nn::Linear(16, 1));
  net->to(at::kDouble);
  return net;
}

/// Weighted errors of a net: mean of σ(λ_i)(net(x_i) − y_i)². It notes what its own step saw.
struct Lower final : Problem {
  Lower(Randomness kind, torch::nn::Sequential net, at::Tensor weights)
      : Problem(trains(net)), kind(kind), net(net), weights(weights) {}

  at::Tensor value() {
    const at::Tensor errors = (net->forward(x).squeeze(1) - y).square();
    const at::Tensor weighted = weights.sigmoid() * errors;
    if (kind == Randomness::top_k || kind == Randomness::top_k_recomputed) {
      // The half with the largest errors.
      const auto choose = [&] { return std::get<1>(errors.topk(kRows / 2)); };
      return weighted.index_select(0, kind == Randomness::top_k ? replayed(choose) : choose())
          .mean();
    }
    return weighted.mean();
  }
  Evaluation loss(const Batch&) override {
    generator = at::detail::getDefaultCPUGenerator().get_state();
    return value();
  }
  void on_gradient(Tensors&) override {
    step_generator = generator;
    step_values = clone(net->parameters());
  }
  void on_step() override { step_buffers = clone(net->buffers()); }

  Randomness kind;
  torch::nn::Sequential net;
  at::Tensor weights, x, y, generator, step_generator;
  Tensors step_values, step_buffers;
};

/// Fits targets of its own with the same net in the mode it stands in, without dropout or running
/// statistics: its two outer layers alone.
struct Upper final : Problem {
  Upper(at::Tensor weights, torch::nn::Sequential net) : Problem(trains(weights)), net(net) {}
  Evaluation loss(const Batch&) override {
    at::Tensor sum = at::zeros({}, kDouble);
    for (const auto& parameter : net->parameters()) sum = sum + (parameter + 0.3).pow(4).sum();
    return sum;
  }
  torch::nn::Sequential net;
};

struct Game2 {
  explicit Game2(Randomness kind) : net(make_net(kind)) {
    lower = std::make_shared<Lower>(kind, net, weights);
    lower->x = x;
    lower->y = y;
  }
  Vector hypergradient(std::unique_ptr<Method> method, int steps = 2) {
    Engine engine;
    engine.add("lower", lower,
               {.optimizer = sgd({.lr = 0.05}), .best_response = std::move(method)});
    engine.add("upper", Upper(weights, net), {.optimizer = sgd({.lr = 0.05})});
    for (int i = 0; i < steps; ++i) engine.step();
    return to_vector(engine.hypergradient("upper")[0]);
  }
  // ∇_λ and ∇_θ of the lower loss at θ of before the last step (+ shift·v), under the draw that
  // `generator` gives.
  std::pair<at::Tensor, Tensors> gradient(const at::Tensor& generator, double shift,
                                          const Tensors& v) {
    const at::NoGradGuard no_grad;
    const Tensors now = clone(net->parameters()), buffers = clone(net->buffers()),
                  live = net->parameters();
    for (std::size_t i = 0; i < live.size(); ++i)
      live[i].copy_(lower->step_values[i] + shift * v[i]);
    at::Generator random = at::detail::getDefaultCPUGenerator();
    random.set_state(generator);
    std::pair<at::Tensor, Tensors> result;
    {
      const at::AutoGradMode with_gradients(true);
      const at::Tensor loss = lower->value();
      const Tensors first = torch::autograd::grad({loss}, live, {}, true, true);
      at::Tensor inner = at::zeros({}, kDouble);
      for (std::size_t i = 0; i < live.size(); ++i) inner = inner + (first[i] * v[i]).sum();
      result = {torch::autograd::grad({loss}, {weights}, {}, true)[0],
                torch::autograd::grad({inner}, {weights})};
    }
    for (std::size_t i = 0; i < live.size(); ++i) live[i].copy_(now[i]);
    for (std::size_t i = 0; i < buffers.size(); ++i) net->buffers()[i].copy_(buffers[i]);
    return result;
  }
  // −∂²L/∂λ∂θ v with v = ∂L_u/∂θ after the step: scale one.
  Tensors direction() const {
    Tensors v;
    for (const auto& parameter : net->parameters())
      v.push_back(4.0 * (parameter.detach() + 0.3).pow(3));
    return v;
  }
  Vector exact(const at::Tensor& generator) {
    return -to_vector(gradient(generator, 0.0, direction()).second[0]);
  }

  torch::nn::Sequential net;
  at::Tensor x = at::randn({kRows, 4}, kDouble), y = at::randn({kRows}, kDouble),
             weights = at::zeros({kRows}, kDouble).requires_grad_();
  std::shared_ptr<Lower> lower;
};

double cosine(const Vector& a, const Vector& b) { return a.dot(b) / (a.norm() * b.norm()); }

at::Tensor other_draw(int seed) {
  at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
  return generator.get_state();
}

using MakeOracle = std::function<std::unique_ptr<Oracle>()>;
std::vector<std::pair<std::string, MakeOracle>> oracles(double wide) {
  return {
      {"exact, kept graph", [] { return exact_oracle(); }},
      {"exact, fresh graph", [] { return exact_oracle({.keep_graph = false}); }},
      {"finite difference", [] { return finite_difference_oracle(); }},
      {"finite difference, wide",
       [wide] {
         return finite_difference_oracle(
             {.constant = wide, .radius = FiniteDifferenceOptions::Radius::norm});
       }},
  };
}

std::unique_ptr<Method> with(const MakeOracle& oracle) {
  return implicit(oracle(), identity_solver({.scale = IdentityOptions::Scale::one}));
}

}  // namespace

TEST_CASE("with dropout in the lower net every oracle differentiates the step's own draw") {
  for (const auto& [name, oracle] : oracles(1e-2)) {
    Game2 game(Randomness::dropout);
    const Vector ours = game.hypergradient(with(oracle)),
                 exact = game.exact(game.lower->step_generator);
    INFO(name << ": cosine " << cosine(ours, exact));
    CHECK(cosine(ours, exact) >= 0.9999);
    if (name.find("exact") == 0) CHECK(relative_error(ours, exact) <= 1e-12);

    // Another draw is another function, and differences between two draws are noise.
    double highest = -1.0;
    for (int seed = 0; seed < 5; ++seed) {
      CHECK(cosine(game.exact(other_draw(seed)), exact) < 0.999);
      const Tensors v = game.direction();
      double size = 0.0;
      for (const auto& each : v) size += each.square().sum().item<double>();
      const double epsilon = 0.01 / std::sqrt(size);
      const Vector plus = to_vector(game.gradient(other_draw(2 * seed), epsilon, v).first),
                   minus = to_vector(game.gradient(other_draw(2 * seed + 1), -epsilon, v).first);
      highest = std::max(highest, cosine((minus - plus) / (2.0 * epsilon), exact));
    }
    CHECK(highest < 0.9);
    if (std::getenv("MLO_PROOF_WORST"))
      std::cout << 1.0 - cosine(ours, exact) << " (redrawn: " << highest << ")  dropout, " << name
                << "\n";
  }
}

TEST_CASE("batch normalization: products in train mode, running statistics untouched to the bit") {
  for (const auto& [name, oracle] : oracles(1e-3)) {
    Game2 game(Randomness::batch_norm);
    const Tensors before = clone(game.net->buffers());
    const Vector ours = game.hypergradient(with(oracle)),
                 exact = game.exact(game.lower->step_generator);
    INFO(name << ": cosine " << cosine(ours, exact));
    CHECK(cosine(ours, exact) >= 0.9999);
    const Tensors after = game.net->buffers();
    REQUIRE(after.size() == 3);
    for (std::size_t i = 0; i < after.size(); ++i) {
      CHECK(at::equal(after[i], game.lower->step_buffers[i]));
      CHECK_FALSE(at::equal(after[i], before[i]));  // the steps themselves did move them
    }
    CHECK(after[2].item<int64_t>() == 3);  // batches tracked: one a step
    CHECK(game.net->is_training());
  }
}

TEST_CASE("a top-k inside the lower loss is replayed; recomputed it spoils differences") {
  for (const auto& [name, oracle] : oracles(0.03)) {
    Game2 game(Randomness::top_k);
    const Vector ours = game.hypergradient(with(oracle));
    // The choice at the point of the step is the one that was recorded.
    const Vector exact = game.exact(game.lower->step_generator);
    INFO(name << ": cosine " << cosine(ours, exact));
    CHECK(cosine(ours, exact) >= 0.9999);

    Game2 recomputed(Randomness::top_k_recomputed);
    const Vector spoiled = recomputed.hypergradient(with(oracle));
    if (name == "finite difference, wide") CHECK(relative_error(spoiled, exact) > 0.05);
    if (name.find("exact") == 0) CHECK(relative_error(spoiled, exact) <= 1e-12);
  }
}
