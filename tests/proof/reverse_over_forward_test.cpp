// Reverse over forward against the exact oracle: the operations it knows, a transformer whose
// targets weigh the loss, and what it refuses.
#include "engine/support.h"

#include <mlo/check.h>
#include <mlo/replayed.h>

using mlo::UnsupportedError;

namespace {

/// min over w of L(w, t); min over t of ½‖w*‖². `loss` may do what it likes with both.
struct Pair {
  Tensors w, t;
  std::function<at::Tensor(const Tensors& w, const Tensors& t)> loss;
};

std::vector<double> hypergradient(const std::function<Pair()>& make,
                                  std::unique_ptr<mlo::Method> method,
                                  mlo::Counters* counters = nullptr,
                                  mlo::OptimizerFactory optimizer = mlo::sgd({.lr = 0.1})) {
  const Pair pair = make();
  Engine engine;
  mlo::Trains low, up;
  for (std::size_t i = 0; i < pair.w.size(); ++i) low.add("w" + std::to_string(i), pair.w[i]);
  for (std::size_t i = 0; i < pair.t.size(); ++i) up.add("t" + std::to_string(i), pair.t[i]);
  engine.add("low", Lambda(low, [pair](const Batch&) { return pair.loss(pair.w, pair.t); }),
             {.optimizer = std::move(optimizer), .best_response = std::move(method)});
  engine.add("up",
             Lambda(up,
                    [pair](const Batch&) {
                      at::Tensor sum = torch::zeros({}, at::kDouble);
                      for (const at::Tensor& w : pair.w) sum = sum + 0.5 * w.square().sum();
                      return sum;
                    }),
             {.optimizer = mlo::sgd({.lr = 0.1})});
  std::vector<double> flat;
  for (const at::Tensor& g : engine.hypergradient("up")) {
    if (!g.defined()) continue;
    const at::Tensor values = g.flatten().contiguous();
    flat.insert(flat.end(), values.data_ptr<double>(), values.data_ptr<double>() + values.numel());
  }
  if (counters) *counters = engine.counters("low");
  return flat;
}

double difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  REQUIRE_FALSE(a.empty());
  double gap = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) gap += std::pow(a[i] - b[i], 2), size += b[i] * b[i];
  REQUIRE(size > 0);
  return std::sqrt(gap / size);
}

at::Tensor parameter(at::IntArrayRef shape, uint64_t seed) {
  torch::manual_seed(seed);
  return torch::randn(shape, at::kDouble).requires_grad_();
}

using Operation = std::function<at::Tensor(const at::Tensor&)>;

// The operation is applied to a mixture of w and t, so that its tangent and its graph to t are both
// needed.
std::function<Pair()> mixture(const Operation& operation, bool positive) {
  return [=] {
    Pair pair{{parameter({3, 4}, 1)}, {parameter({3, 4}, 2)}, {}};
    pair.loss = [=](const Tensors& w, const Tensors& t) {
      const at::Tensor x = w[0] * t[0] + 0.3 * w[0].square() + 0.2 * t[0];
      const at::Tensor y = operation(positive ? x.square() + 0.5 : x);
      return (y * y).sum() + (y * torch::arange(y.numel(), at::kDouble).view_as(y)).mean();
    };
    return pair;
  };
}

}  // namespace

TEST_CASE("The operations that reverse over forward knows are right", "[proof][forward]") {
  const at::Tensor m = torch::linspace(-1, 1, 20, at::kDouble).view({4, 5}),
                   index = torch::tensor({2, 0, 1, 1});
  const std::tuple<const char*, Operation, bool> table[] = {
      {"add, sub, rsub, neg", [](const at::Tensor& x) { return 1.0 - (x + 2.0 * x) - (-x); },
       false},
      {"div", [](const at::Tensor& x) { return (x + 1.0) / x; }, true},
      {"reciprocal", [](const at::Tensor& x) { return x.reciprocal(); }, true},
      {"pow", [](const at::Tensor& x) { return x.pow(1.5); }, true},
      {"exp", [](const at::Tensor& x) { return (0.2 * x).exp(); }, false},
      {"log", [](const at::Tensor& x) { return x.log(); }, true},
      {"sqrt", [](const at::Tensor& x) { return x.sqrt(); }, true},
      {"abs", [](const at::Tensor& x) { return x.abs(); }, false},
      {"sin, cos", [](const at::Tensor& x) { return x.sin() + x.cos(); }, false},
      {"sigmoid", [](const at::Tensor& x) { return x.sigmoid(); }, false},
      {"tanh", [](const at::Tensor& x) { return x.tanh(); }, false},
      {"relu", [](const at::Tensor& x) { return x.relu(); }, false},
      {"softplus", [](const at::Tensor& x) { return at::softplus(x); }, false},
      {"clamp", [](const at::Tensor& x) { return x.clamp(-0.5, 1.0) + x.clamp_min(0.1); }, false},
      {"masked_fill, where",
       [](const at::Tensor& x) { return at::where(x > 0.3, x, 2.0 * x).masked_fill(x > 1.0, 0.5); },
       false},
      {"mm, t", [=](const at::Tensor& x) { return x.mm(m).t(); }, false},
      {"addmm", [=](const at::Tensor& x) { return at::addmm(x.mean() * m.sum(0), x, m); }, false},
      {"mv, dot",
       [=](const at::Tensor& x) { return x.mv(m.select(1, 0)).dot(x.select(1, 1)).view({1}); },
       false},
      {"bmm",
       [](const at::Tensor& x) { return x.unsqueeze(0).bmm(x.unsqueeze(0).transpose(1, 2)); },
       false},
      {"matmul, linear",
       [=](const at::Tensor& x) {
         return at::linear(x.view({1, 3, 4}), m.t()).matmul(m.t());
       },
       false},
      {"sum, mean", [](const at::Tensor& x) { return x.sum(1) + x.mean(1); }, false},
      {"view, permute, expand, squeeze",
       [](const at::Tensor& x) {
         return x.view({4, 3}).permute({1, 0}).unsqueeze(0).expand({2, 3, 4}).squeeze();
       },
       false},
      {"select, slice, cat, stack",
       [](const at::Tensor& x) {
         return at::cat(
             {x.select(0, 1), x.slice(1, 1, 3).flatten(), at::stack({x[0], x[2]}).flatten()});
       },
       false},
      {"index_select, gather",
       [=](const at::Tensor& x) {
         return x.index_select(0, index) * x.gather(0, index.view({1, 4}));
       },
       false},
      {"to, clone", [](const at::Tensor& x) { return x.to(at::kFloat).to(at::kDouble).clone(); },
       false},
  };
  for (const auto& [name, operation, positive] : table) {
    INFO(name);
    const auto exact = hypergradient(mixture(operation, positive), mlo::one_step());
    const auto duals = hypergradient(mixture(operation, positive), by_duals());
    CHECK(difference(duals, exact) < (std::string(name) == "to, clone" ? 1e-5 : 1e-10));
    // The other method of the family is right, too: the mixture has second derivatives to be wrong
    // about.
    CHECK(difference(hypergradient(mixture(operation, positive), mlo::darts()), exact) <
          (std::string(name) == "to, clone" ? 1e-2 : 1e-4));
  }
}

TEST_CASE(
    "What LibTorch does not differentiate right after a forward derivative is refused by name",
    "[proof][forward]") {
  const std::tuple<const char*, Operation> table[] = {
      {"LayerNorm", [](const at::Tensor& x) { return at::layer_norm(x, {4}); }},
      {"max", [](const at::Tensor& x) { return x.softmax(1); }},
      {"NllLoss",
       [](const at::Tensor& x) {
         return at::cross_entropy_loss(x, torch::tensor({0, 1, 2})).view({1});
       }},
      {"Gelu", [](const at::Tensor& x) { return at::gelu(x); }},
      {"Var", [](const at::Tensor& x) { return x.var(1); }},
      {"max",
       [](const at::Tensor& x) {
         const at::Tensor q = x.view({1, 1, 3, 4});
         return at::scaled_dot_product_attention(q, q, q);
       }},
  };
  for (const auto& [name, operation] : table) {
    INFO(name);
    check_refused<UnsupportedError>(
        [&] { hypergradient(mixture(operation, false), by_duals()); },
        {"level 'low'", "reverse-over-forward", name, "mlo::one_step()", "mlo::darts()"});
    CHECK_NOTHROW(hypergradient(mixture(operation, false), mlo::one_step()));
  }
  // Where only the upper parameters pass through them, they do no harm: here in a network that
  // weighs errors. And are refused as soon as the lower ones do, too.
  for (const auto& [name, operation] : table) {
    INFO(name);
    const auto weighing = [operation = operation](bool both) {
      return [=] {
        Pair pair{{parameter({3, 4}, 1)}, {parameter({3, 4}, 2)}, {}};
        pair.loss = [=](const Tensors& w, const Tensors& t) {
          const at::Tensor weight = operation(both ? t[0] * w[0] : t[0]).square().sum();
          return weight * (w[0].square() * w[0]).sum() + w[0].square().sum();
        };
        return pair;
      };
    };
    CHECK(difference(hypergradient(weighing(false), by_duals()),
                     hypergradient(weighing(false), mlo::one_step())) < 1e-10);
    check_refused<UnsupportedError>([&] { hypergradient(weighing(true), by_duals()); }, {name});
  }
  // A Hessian product goes through the level's own parameters, here through a layer norm.
  check_refused<UnsupportedError>(
      [] {
        hypergradient(
            [] {
              Pair pair{{parameter({3, 4}, 1)}, {parameter({3}, 2)}, {}};
              pair.loss = [](const Tensors& w, const Tensors& t) {
                return (at::layer_norm(w[0], {4}).square().sum(1) * t[0]).sum() +
                       w[0].square().sum();
              };
              return pair;
            },
            mlo::implicit(mlo::reverse_over_forward_oracle(), mlo::conjugate_gradient_solver()));
      },
      {"LayerNorm"});
}

namespace {

/// A block of attention, layer norm, GELU and dropout; t weighs the errors of its tokens, as a
/// masking network's probabilities do.
std::function<Pair()> transformer(double dropout) {
  return [=] {
    Pair pair{{parameter({8, 24}, 1), parameter({8, 8}, 2), parameter({8}, 3),
               parameter({8, 16}, 4), parameter({16, 8}, 5)},
              {parameter({5, 6}, 6), parameter({6}, 7)},
              {}};
    torch::manual_seed(8);
    const at::Tensor x = torch::randn({2, 6, 8}, at::kDouble),
                     y = torch::randn({2, 6, 8}, at::kDouble),
                     z = torch::randn({2, 5}, at::kDouble);
    pair.loss = [=](const Tensors& w, const Tensors& t) {
      const auto parts = at::layer_norm(x, {8}, w[2])
                             .matmul(w[0])
                             .view({2, 6, 3, 2, 4})
                             .permute({2, 0, 3, 1, 4})
                             .unbind(0);
      const at::Tensor attended = at::scaled_dot_product_attention(parts[0], parts[1], parts[2])
                                      .transpose(1, 2)
                                      .reshape({2, 6, 8});
      const at::Tensor h = x + at::dropout(attended.matmul(w[1]), dropout, true);
      const at::Tensor out =
          h +
          at::dropout(at::gelu(at::layer_norm(h, {8}).matmul(w[3])).matmul(w[4]), dropout, true);
      const at::Tensor probability = at::linear(z, t[0].t(), t[1]).sigmoid();
      const at::Tensor masked = mlo::replayed([&] {
                                  return (probability + torch::rand_like(probability)) > 0.8;
                                }).to(at::kDouble);
      return ((out - y).square().mean(-1) * probability * masked).sum() / masked.sum();
    };
    return pair;
  };
}

}  // namespace

TEST_CASE(
    "Where the targets weigh the loss of a transformer, reverse over forward is exact and passes "
    "once",
    "[proof][forward]") {
  for (const double dropout : {0.0, 0.3}) {
    for (const auto& optimizer :
         {mlo::sgd({.lr = 0.1}), mlo::adamw({.lr = 0.01, .weight_decay = 0.1})}) {
      INFO("dropout " << dropout);
      mlo::Counters by_kept, counters;
      const auto exact = hypergradient(transformer(dropout), mlo::one_step(), &by_kept, optimizer);
      const auto duals = hypergradient(transformer(dropout), by_duals(), &counters, optimizer);
      CHECK(difference(duals, exact) < 1e-10);
      // The step itself, and one pass of each kind for the product.
      CHECK(counters.forwards == 2);
      CHECK(counters.backwards == 2);
      CHECK(counters.mixed_products == 1);
      CHECK(by_kept.forwards == 1);
    }
  }
}

TEST_CASE("Dual numbers are left behind by nobody", "[proof][forward]") {
  int calls = 0;
  const at::Tensor w = parameter({3}, 1), t = parameter({3}, 2);
  Engine engine;
  engine.add("low",
             Lambda(mlo::trains(w),
                    [&, w, t](const Batch&) {
                      if (++calls == 4)
                        throw std::runtime_error(
                            "in the middle");  // build: reads, trial; the step; the product
                      return (w.square() * t.exp()).sum();
                    }),
             {.optimizer = mlo::sgd({.lr = 0.1}), .best_response = by_duals()});
  engine.add("up", Lambda(mlo::trains(t), [w](const Batch&) { return w.square().sum(); }),
             {.optimizer = mlo::sgd({.lr = 0.1})});
  bool threw = false;
  for (int i = 0; i < 6 && !threw; ++i) {
    try {
      engine.step();
    } catch (const std::runtime_error&) {
      threw = true;
    }
  }
  REQUIRE(threw);
  CHECK_FALSE(w._fw_grad(0).defined());
  engine.step();
  CHECK_FALSE(w._fw_grad(0).defined());
}
