// Gradient accumulation: three micro-batches give what one batch of all rows gives, in every
// product.
#include "curved.h"
#include "mlo/hypergradient/presets.h"

#include <ATen/ATen.h>
#include <torch/utils.h>

#include "catch.h"

using namespace mlo;
using namespace mlo::testing;

namespace {

constexpr int64_t kParts = 3, kRows = 4;

// All rows as one batch, or the i-th part of them.
Data rows_of(const at::Tensor& rows, bool split) {
  if (!split) return Batch{rows};
  return [rows](int64_t i) { return Batch{rows.narrow(0, kRows * (i % kParts), kRows)}; };
}

// Least squares with a penalty: L(w; c, p) = mean ½(x·w − c y)² + ½ p² ‖w‖², with its derivatives
// in closed form.
struct Fit final : Problem, AnalyticDerivatives {
  Fit(at::Tensor w, at::Tensor c, at::Tensor p) : Problem(trains(w)), w(w), c(c), p(p) {}
  Evaluation loss(const Batch& batch) override {
    return 0.5 * (batch[0].mv(w) - c * batch[1]).square().mean() +
           0.5 * p.square() * w.square().sum();
  }
  Tensors product(const Batch& batch, const Tensors& v, const Tensors& wrt) override {
    const at::Tensor xv = batch[0].mv(v[0]);
    Tensors result;
    for (const auto& t : wrt) {
      if (t.is_same(w))
        result.push_back(batch[0].t().mv(xv) / batch[0].size(0) + p.square() * v[0]);
      if (t.is_same(c)) result.push_back(-(batch[1] * xv).mean());
      if (t.is_same(p)) result.push_back(2.0 * p * w.dot(v[0]));
    }
    return result;
  }
  at::Tensor w, c, p;
};

struct Held final : Problem {
  Held(at::Tensor c, at::Tensor p, at::Tensor w) : Problem(trains(c, p)), w(w) {}
  Evaluation loss(const Batch& batch) override {
    return (batch[0].mv(w) - batch[1]).square().mean();
  }
  at::Tensor w;
};

Vector fitted(std::unique_ptr<Method> method, bool split) {
  torch::manual_seed(5);
  const auto kDouble = at::TensorOptions(at::kDouble);
  const at::Tensor x = at::randn({kParts * kRows, 4}, kDouble),
                   y = at::randn({kParts * kRows}, kDouble);
  const at::Tensor w = at::randn({4}, kDouble).requires_grad_(),
                   c = at::ones({}, kDouble).requires_grad_(),
                   p = at::full({}, 0.5, kDouble).requires_grad_();
  const auto data = [&]() -> Data {
    if (!split) return Batch{x, y};
    return [x, y](int64_t i) {
      const int64_t begin = kRows * (i % kParts);
      return Batch{x.narrow(0, begin, kRows), y.narrow(0, begin, kRows)};
    };
  };
  Engine engine;
  engine.add("fit", Fit(w, c, p),
             {.optimizer = sgd({.lr = 0.1}),
              .data = data(),
              .best_response = std::move(method),
              .accumulate = split ? kParts : 1});
  engine.add("held", Held(c, p, w),
             {.optimizer = sgd({.lr = 0.1}), .data = data(), .accumulate = split ? kParts : 1});
  engine.step();
  const Tensors g = engine.hypergradient("held");
  Vector result(2);
  result << g[0].item<double>(), g[1].item<double>();
  return result;
}

}  // namespace

TEST_CASE("accumulated hypergradients are those of the joined batch") {
  const std::vector<std::pair<std::string, std::function<std::unique_ptr<Method>()>>> methods = {
      {"one step, kept graph", [] { return one_step(); }},
      {"one step, fresh graph", [] { return one_step({.keep_graph = false}); }},
      {"conjugate gradient, kept graph", [] { return cg({.tolerance = 1e-14}); }},
      {"conjugate gradient, fresh graph",
       [] { return cg({.tolerance = 1e-14}, {.keep_graph = false}); }},
      {"Neumann", [] { return neumann({.iterations = 4, .step = 0.2}); }},
      {"unrolled", [] { return unrolled(); }},
      {"unrolled, kept graphs", [] { return unrolled(exact_oracle()); }},
      {"differences", [] { return darts(); }},
  };
  for (const auto& name : {"two levels", "chain of three", "diamond", "two on top"})
    for (const Setup& setup : {Setup{"SGD", Kind::sgd, {{.momentum = 0.5}}},
                               Setup{"AdamW", Kind::adamw, {{.weight_decay = 0.1}}}})
      for (const auto& [method_name, method] : methods)
        for (const double clip : {0.0, 0.2}) {
          const auto run = [&](bool split) {
            const auto game = std::make_shared<Game>(shape(name), GameOptions{.curved = true});
            std::mt19937_64 random(11);
            std::vector<at::Tensor> rows;
            for (std::size_t k = 0; k < game->levels(); ++k)
              rows.push_back(to_tensor(random_matrix(kParts * kRows, 3, random)));
            Engine engine;
            add_levels(engine, game, [&](std::size_t k) {
              LevelOptions options;
              options.optimizer = factory(setup);
              options.data = rows_of(rows[k], split);
              options.accumulate = split ? kParts : 1;
              options.best_response = method();
              options.clip_norm = clip;
              return options;
            });
            engine.step();
            const std::size_t u = game->shape.uppers[0];
            return game->flat(u, engine.hypergradient(game->shape.levels[u].name));
          };
          INFO(name << ", " << setup.name << ", " << method_name << ", clip " << clip);
          CHECK(relative_error(run(true), run(false)) <=
                (method_name == "differences" ? 1e-8 : 1e-12));
        }
}

TEST_CASE("accumulated hypergradients by analytic products") {
  // A factor on all products cancels in a solve, not in the identity.
  for (const bool solve : {true, false}) {
    const auto make = [solve](bool analytic) {
      return implicit(analytic ? analytic_oracle() : exact_oracle(),
                      solve ? conjugate_gradient_solver({.tolerance = 1e-14}) : identity_solver());
    };
    const Vector joined = fitted(make(false), false);
    CHECK(relative_error(fitted(make(true), true), joined) <= 1e-12);
    CHECK(relative_error(fitted(make(true), false), joined) <= 1e-12);
    CHECK(relative_error(fitted(make(false), true), joined) <= 1e-12);
  }
}

TEST_CASE("the comparison of batches notices one micro-batch for three") {
  const auto run = [](int64_t accumulate) {
    const auto game = std::make_shared<Game>(shape("two levels"), GameOptions{.curved = true});
    std::mt19937_64 random(11);
    const at::Tensor rows = to_tensor(random_matrix(kParts * kRows, 3, random));
    Engine engine;
    add_levels(engine, game, [&](std::size_t) {
      LevelOptions options;
      options.optimizer = sgd({.lr = 0.5});
      options.data = rows_of(rows, true);
      options.accumulate = accumulate;
      return options;
    });
    return game->flat(1, engine.hypergradient("top"));
  };
  CHECK(relative_error(run(1), run(3)) > 1e-3);
}
