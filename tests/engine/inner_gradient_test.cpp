// Losses that take gradients themselves: gradient penalties, physics-informed networks, an inner
// step of MAML by hand.
#include "engine/support.h"

using mlo::LossError;
using mlo::UnsupportedError;

namespace {

constexpr double kRate = 0.1;

/// min over w of `loss`(w, t); min over t of ½‖w*‖².
struct Pair {
  Tensors w, t;
  std::function<at::Tensor(const Tensors& w, const Tensors& t)> loss;
};

at::Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  torch::manual_seed(seed);
  return torch::randn(shape, at::kDouble);
}
at::Tensor parameter(at::IntArrayRef shape, uint64_t seed) {
  return normal(shape, seed).requires_grad_();
}

at::Tensor half_square(const Tensors& w) {
  at::Tensor sum = at::zeros({}, at::kDouble);
  for (const at::Tensor& part : w) sum = sum + 0.5 * part.square().sum();
  return sum;
}

at::Tensor network(const at::Tensor& x, const Tensors& w) {
  return x.matmul(w[0]).tanh().matmul(w[1]);
}

/// A penalty on the network's slope at its inputs, whose weight the level above trains (WGAN-GP,
/// Sobolev training).
Pair gradient_penalty() {
  Pair pair{{parameter({3, 4}, 1), parameter({4, 1}, 2)}, {leaf(-0.3)}, {}};
  const at::Tensor x = normal({6, 3}, 3), y = normal({6, 1}, 4);
  pair.loss = [=](const Tensors& w, const Tensors& t) {
    const at::Tensor input = x.clone().requires_grad_();
    const at::Tensor out = network(input, w);
    const at::Tensor slope =
        torch::autograd::grad({out.sum()}, {input}, {}, true, /*create_graph=*/true)[0];
    return (out - y).square().mean() + t[0].exp() * (slope.square().sum(1) - 1.0).square().mean();
  };
  return pair;
}

/// u'' + k u = 0, u(0) = 1 by a network; the level above looks for k.
Pair physics_informed() {
  Pair pair{{parameter({1, 5}, 5), parameter({5, 1}, 6)}, {leaf(0.7)}, {}};
  const at::Tensor points = at::linspace(0.0, 1.0, 7, at::kDouble).view({7, 1});
  pair.loss = [=](const Tensors& w, const Tensors& t) {
    const at::Tensor x = points.clone().requires_grad_();
    const at::Tensor u = network(x, w);
    const at::Tensor first = torch::autograd::grad({u.sum()}, {x}, {}, true, true)[0];
    const at::Tensor second = torch::autograd::grad({first.sum()}, {x}, {}, true, true)[0];
    return (second + t[0] * u).square().mean() + (u[0] - 1.0).square().sum();
  };
  return pair;
}

/// An inner gradient step on the level's own parameters, at a rate that the level above trains.
Pair maml() {
  Pair pair{{parameter({3, 4}, 7), parameter({4, 1}, 8)}, {leaf(-1.5)}, {}};
  const at::Tensor x = normal({6, 3}, 9), y = normal({6, 1}, 10), x2 = normal({6, 3}, 11),
                   y2 = normal({6, 1}, 12);
  pair.loss = [=](const Tensors& w, const Tensors& t) {
    const at::Tensor inner = (network(x, w) - y).square().mean();
    const Tensors g = torch::autograd::grad({inner}, w, {}, true, true);
    return (network(x2, {w[0] - t[0].exp() * g[0], w[1] - t[0].exp() * g[1]}) - y2).square().mean();
  };
  return pair;
}

/// d/dt of ½‖w − rate·∇_w L(w, t)‖², by automatic differentiation through one step.
double by_hand(const Pair& pair) {
  const Tensors g = torch::autograd::grad({pair.loss(pair.w, pair.t)}, pair.w, {}, true, true);
  Tensors stepped;
  for (std::size_t i = 0; i < g.size(); ++i) stepped.push_back(pair.w[i] - kRate * g[i]);
  return torch::autograd::grad({half_square(stepped)}, pair.t)[0].item<double>();
}

std::unique_ptr<Engine> engine_of(const Pair& pair, std::unique_ptr<mlo::Method> method,
                                  int64_t unroll = 1) {
  auto engine = std::make_unique<Engine>();
  mlo::Trains low, up;
  for (std::size_t i = 0; i < pair.w.size(); ++i) low.add("w" + std::to_string(i), pair.w[i]);
  for (std::size_t i = 0; i < pair.t.size(); ++i) up.add("t" + std::to_string(i), pair.t[i]);
  engine->add(
      "low", Lambda(low, [pair](const Batch&) { return pair.loss(pair.w, pair.t); }),
      {.optimizer = mlo::sgd({.lr = kRate}), .unroll = unroll, .best_response = std::move(method)});
  engine->add("up", Lambda(up, [pair](const Batch&) { return half_square(pair.w); }), sgd());
  return engine;
}

double hypergradient(const Pair& pair, std::unique_ptr<mlo::Method> method) {
  return engine_of(pair, std::move(method))->hypergradient("up")[0].item<double>();
}

}  // namespace

TEST_CASE("A loss that calls autograd::grad builds, and its hypergradient is right by every method",
          "[engine][inner]") {
  const std::pair<const char*, Pair (*)()> losses[] = {{"gradient penalty", gradient_penalty},
                                                       {"physics-informed", physics_informed},
                                                       {"MAML by hand", maml}};
  for (const auto& [name, make] : losses) {
    INFO(name);
    const double exact = by_hand(make());
    REQUIRE(std::abs(exact) > 1e-4);
    CHECK(hypergradient(make(), mlo::one_step()) == Approx(exact).epsilon(1e-10));
    CHECK(hypergradient(make(), mlo::one_step({.keep_graph = false})) ==
          Approx(exact).epsilon(1e-10));
    CHECK(hypergradient(make(), mlo::unrolled()) == Approx(exact).epsilon(1e-10));
    CHECK(hypergradient(make(), mlo::unrolled(mlo::finite_difference_oracle())) ==
          Approx(exact).epsilon(1e-5));
    CHECK(hypergradient(make(), mlo::darts()) == Approx(exact).epsilon(1e-5));
    // Dual numbers go through the inner gradient, or are refused before the first step.
    const auto engine = engine_of(make(), by_duals());
    bool refused = false;
    try {
      engine->build();
    } catch (const UnsupportedError& error) {
      refused = true;
      CHECK(std::string(error.what()).find("level 'low': the reverse-over-forward oracle") == 0);
    }
    CAPTURE(refused);
    if (!refused)
      CHECK(engine->hypergradient("up")[0].item<double>() == Approx(exact).epsilon(1e-10));
    // What differences of the steps say, which replay them.
    const Pair pair = make();
    const auto checked = engine_of(pair, mlo::one_step());
    CHECK(mlo::check_hypergradient(*checked).steps_taken.relative_error < 1e-6);
    // Neighbours: solvers that take Hessian products, and several steps.
    CHECK_NOTHROW(engine_of(make(), mlo::cg())->step());
    CHECK_NOTHROW(engine_of(make(), mlo::unrolled(), 3)->step());
    for (const auto& tensor : pair.w) CHECK(tensor.requires_grad());
  }
}

TEST_CASE("A loss may take gradients by another level's parameters", "[engine][inner]") {
  // ½‖∇_x ½(x − y)²‖² + ½y² at the top: x is the lower level's.
  const at::Tensor x = leaf({0.2, 0.9}), y = leaf({0.5, -0.3});
  const auto top = [=](const Batch&) {
    const at::Tensor g =
        torch::autograd::grad({0.5 * (x - y).square().sum()}, {x}, {}, true, true)[0];
    return 0.5 * g.square().sum() + 0.5 * y.square().sum();
  };
  for (const bool constant : {false, true}) {
    INFO("constant " << constant);
    Engine engine;
    engine.add("low", follow(x, y), sgd(0.0));
    LevelOptions options = sgd();
    if (constant) options.constant = {"low"};
    engine.add("up", Lambda(y, top), std::move(options));
    const at::Tensor direct = (y - x + y).detach();
    CHECK(at::allclose(engine.hypergradient("up")[0], direct));
  }
}

TEST_CASE("Gradients stay on only where the loss needs them", "[engine][inner]") {
  for (const bool needed : {false, true}) {
    const at::Tensor x = leaf({0.2, 0.9}), y = leaf({0.5, -0.3});
    std::vector<bool> own;
    Engine engine;
    engine.add("low",
               Lambda(x,
                      [&, x, y](const Batch&) {
                        own.push_back(x.requires_grad());
                        const at::Tensor loss = 0.5 * (x - y).square().sum();
                        if (!needed) return loss;
                        return loss +
                               torch::autograd::grad({loss}, {x}, {}, true, true)[0].square().sum();
                      }),
               respond(mlo::darts()));
    engine.add("up", lead(y, x), sgd());
    engine.build();
    own.clear();
    engine.step();
    REQUIRE(own.size() >= 3);  // the step, both sides of the difference, and the look whether a
                               // replay gives the step's value
    CHECK(own.front());
    for (std::size_t i = 1; i < own.size(); ++i) CHECK(own[i] == needed);
    CHECK(x.requires_grad());
    CHECK(y.requires_grad());
  }
}

TEST_CASE("Losses whose value takes another path without gradients are not refused",
          "[engine][inner][replay]") {
  const std::pair<const char*, std::function<at::Tensor(const at::Tensor&)>> losses[] = {
      {"singular values", [](const at::Tensor& w) { return at::linalg_svdvals(w).sum(); }},
      {"nuclear norm", [](const at::Tensor& w) { return at::nuclear_norm(w); }},
      {"condition", [](const at::Tensor& w) { return at::linalg_cond(w); }},
  };
  for (const auto& [name, spectrum] : losses)
    for (const auto type : {at::kFloat, at::kDouble})
      for (const int64_t n : {5, 12, 40}) {
        INFO(name << ", " << n << ", " << c10::toString(type));
        torch::manual_seed(1);
        const at::Tensor w = at::randn({n, n}, type).requires_grad_(),
                         t = at::full({}, -3.0, type).requires_grad_();
        Engine engine;
        engine.add(
            "low",
            Lambda(w, [=, f = spectrum](
                          const Batch&) { return (w - 1.0).square().mean() + t.exp() * f(w); }),
            respond(mlo::darts(), 0.01));
        engine.add("up", Lambda(t, [=](const Batch&) { return w.square().mean() + 0.0 * t; }),
                   sgd(0.01));
        CHECK_NOTHROW(engine.step());
      }
}

TEST_CASE("A loss that changes on replay is shown with all its digits", "[engine][inner][replay]") {
  const ThreadsGuard back;
  at::set_num_threads(1);  // with more the last digit may differ
  const at::Tensor x = leaf(1.0);
  int calls = 0;
  Engine engine;
  engine.add("low",
             Lambda(x,
                    [&, x](const Batch&) {
                      return x * (calls++ == 0 ? 33.1882 : std::nextafter(33.1882, 34.0));
                    }),
             sgd());
  check_refused<LossError>([&] { engine.build(); },
                           {"changes on replay: 33.1882, then 33.188200000000"});
}
