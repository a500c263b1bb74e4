// Activation checkpointing: the same derivatives of every order, and nothing kept.
#include "engine/support.h"

namespace {

struct Layer {
  at::Tensor w, b;
  double dropout = 0.0;
  explicit Layer(uint64_t seed, double p) : dropout(p) {
    torch::manual_seed(seed);
    w = (0.4 * torch::randn({6, 6}, at::kDouble)).requires_grad_();
    b = (0.1 * torch::randn({6}, at::kDouble)).requires_grad_();
  }
  at::Tensor operator()(const at::Tensor& x) const {
    return at::dropout(at::layer_norm(x.matmul(w) + b, {6}).tanh().exp(), dropout, true) + x;
  }
  Tensors parameters() const { return {w, b}; }
};

at::Tensor network(const std::vector<Layer>& layers, at::Tensor x, bool recompute) {
  for (const Layer& layer : layers)
    x = recompute ? mlo::checkpointed(layer, x, layer.parameters()) : layer(x);
  return x.square().mean();
}

Tensors all(const std::vector<Layer>& layers, const at::Tensor& x) {
  Tensors tensors = {x};
  for (const Layer& layer : layers) tensors.insert(tensors.end(), {layer.w, layer.b});
  return tensors;
}

double gap(const Tensors& a, const Tensors& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    most = std::max(most, (a[i] - b[i]).abs().max().item<double>());
  return most;
}

}  // namespace

TEST_CASE("Checkpointed functions have the same first and second derivatives, under the same draws",
          "[checkpointed]") {
  for (const double dropout : {0.0, 0.4}) {
    const std::vector<Layer> layers = {Layer(1, dropout), Layer(2, dropout), Layer(3, dropout)};
    torch::manual_seed(9);
    const at::Tensor x = torch::randn({4, 6}, at::kDouble).requires_grad_();
    const Tensors wrt = all(layers, x);
    Tensors v;
    for (const at::Tensor& t : wrt) v.push_back(torch::randn_like(t));

    std::vector<Tensors> gradients, products;
    std::vector<double> next_draw;
    for (const bool recompute : {false, true}) {
      torch::manual_seed(7);
      const at::Tensor loss = network(layers, x, recompute);
      next_draw.push_back(torch::rand({}, at::kDouble).item<double>());
      const Tensors plain =
          torch::autograd::grad({loss}, wrt, {}, /*retain_graph=*/true, /*create_graph=*/false);
      gradients.push_back(torch::autograd::grad({loss}, wrt, {}, true, /*create_graph=*/true));
      CHECK(gap(plain, gradients.back()) < 1e-15);
      products.push_back(torch::autograd::grad(gradients.back(), wrt, v));
      next_draw.push_back(torch::rand({}, at::kDouble).item<double>());
    }
    CHECK(gap(gradients[0], gradients[1]) < 1e-13);
    CHECK(gap(products[0], products[1]) < 1e-12);
    CHECK(next_draw[0] == next_draw[2]);  // the stream went on as if nothing had been recomputed
    CHECK(next_draw[1] == next_draw[3]);
    // Another draw is another function.
    torch::manual_seed(8);
    const Tensors other = torch::autograd::grad({network(layers, x, true)}, wrt);
    CHECK((gap(other, gradients[0]) > 1e-3) == (dropout > 0.0));
  }
}

TEST_CASE("Checkpointed functions keep their input and no more", "[checkpointed]") {
  const auto kept = [](bool recompute) {
    const at::Tensor x = torch::randn({64, 6}, at::kDouble).requires_grad_();
    const std::vector<Layer> layers = {Layer(1, 0.0)};
    const at::Tensor loss = network(layers, x, recompute);
    int nodes = 0;
    std::vector<torch::autograd::Node*> open = {loss.grad_fn().get()};
    while (!open.empty()) {
      torch::autograd::Node* node = open.back();
      open.pop_back();
      if (!node) continue;
      ++nodes;
      for (const auto& edge : node->next_edges()) open.push_back(edge.function.get());
    }
    return nodes;
  };
  CHECK(kept(true) == 6);  // mean, square, the function, and the three leaves it reads
  CHECK(kept(false) > 10);
}

TEST_CASE("Parameters that changed since are an error, and choices inside are", "[checkpointed]") {
  const Layer layer(1, 0.0);
  const at::Tensor x = torch::randn({4, 6}, at::kDouble).requires_grad_();
  const at::Tensor loss = mlo::checkpointed(layer, x, layer.parameters()).sum();
  {
    const at::NoGradGuard no_grad;
    layer.w.mul_(2.0);
  }
  CHECK_THROWS_WITH(loss.backward(), Contains("modified by an inplace operation"));
  CHECK_THROWS_WITH(
      mlo::checkpointed(
          [](const at::Tensor& y) { return y * mlo::replayed([&] { return y > 0; }); }, x, {}),
      Contains("mlo::checkpointed"));
  CHECK_NOTHROW(mlo::replayed([&] { return x > 0; }));  // the ban ends with it
  CHECK_THROWS_AS(
      mlo::checkpointed([](const at::Tensor&) -> at::Tensor { throw std::runtime_error("inside"); },
                        x, {}),
      std::runtime_error);
  const at::NoGradGuard no_grad;
  CHECK_FALSE(mlo::checkpointed(layer, x, layer.parameters()).requires_grad());
}

TEST_CASE("Engines differentiate checkpointed losses by every oracle", "[checkpointed][engine]") {
  const auto hypergradient = [](bool recompute, std::unique_ptr<mlo::Method> method) {
    const std::vector<Layer> layers = {Layer(1, 0.2), Layer(2, 0.2)};
    torch::manual_seed(3);
    const at::Tensor x = torch::randn({4, 6}, at::kDouble),
                     weights = torch::zeros({4}, at::kDouble).requires_grad_();
    mlo::Trains low;
    for (const at::Tensor& t : {layers[0].w, layers[0].b, layers[1].w, layers[1].b})
      low.add("p" + std::to_string(low.parameters().size()), t);
    Engine engine;
    engine.add("low",
               Lambda(low,
                      [=](const Batch&) {
                        at::Tensor out = x;
                        for (const Layer& layer : layers)
                          out = recompute ? mlo::checkpointed(layer, out, layer.parameters())
                                          : layer(out);
                        return (out.square().mean(1) * weights.sigmoid()).sum();
                      }),
               {.optimizer = mlo::adamw({.lr = 0.01}), .best_response = std::move(method)});
    engine.add(
        "up",
        Lambda(mlo::trains(weights),
               [=](const Batch&) { return layers[1].w.square().sum() + layers[0].w.pow(4).sum(); }),
        {.optimizer = mlo::sgd({.lr = 0.1})});
    return engine.hypergradient("up")[0];
  };
  const at::Tensor expected = hypergradient(false, mlo::one_step());
  CHECK(at::allclose(hypergradient(true, mlo::one_step()), expected, 1e-10, 1e-14));
  CHECK(at::allclose(hypergradient(true, mlo::one_step({.keep_graph = false})), expected, 1e-10,
                     1e-14));
  CHECK(at::allclose(hypergradient(true, mlo::implicit(mlo::reverse_over_forward_oracle(),
                                                       mlo::identity_solver())),
                     expected, 1e-10, 1e-14));
  CHECK(at::allclose(hypergradient(true, mlo::darts()), expected, 1e-4, 1e-9));
}
