// UpdateRule's reverse mode through five steps of g(θ, λ) = Qθ + θ³ + Bλ, whose products are known,
// against autograd through the same steps written as functions.
#include "functional_update.h"
#include "optim/update_rule.h"

#include "catch.h"

using namespace mlo;
using namespace mlo::testing;

namespace {

constexpr int kSteps = 5;

/// θ: 3 and 2×2 elements, joined to 7; λ: 2 elements; the loss above: w·θ + ½‖θ‖².
struct Curved {
  at::Tensor q = [] {
    const auto a = at::randn({7, 7}, kDouble);
    return at::matmul(a, a.t()) / 7;
  }();
  at::Tensor b = at::randn({7, 2}, kDouble), w = at::randn({7}, kDouble);
  int64_t dead = -1;    ///< an element of θ whose gradient is always zero
  int skipped_at = -1;  ///< a step in which the second parameter has no gradient
  double largest = 0;   ///< norm that gradients are clipped to

  void kill(int64_t element) {
    dead = element;
    for (const auto& row_or_column : {q[element], q.select(1, element), b[element]}) {
      row_or_column.zero_();
    }
  }
  static at::Tensor join(const Tensors& theta) {
    return at::cat({theta[0].reshape(-1), theta[1].reshape(-1)});
  }
  static Tensors split(const at::Tensor& x) {
    return {x.slice(0, 0, 3), x.slice(0, 3, 7).view({2, 2})};
  }

  at::Tensor mask() const {
    auto mask = at::ones({7}, kDouble);
    if (dead >= 0) {
      mask[dead] = 0;
    }
    return mask;
  }
  Tensors gradient(const Tensors& theta, const at::Tensor& lambda, int step) const {
    const auto x = join(theta);
    auto result = split(at::matmul(q, x) + mask() * x * x * x + at::matmul(b, lambda));
    if (step == skipped_at) {
      result[1] = at::Tensor();
    }
    return result;
  }
  Tensors hessian_product(const Tensors& theta, const Tensors& v) const {
    const auto x = join(theta), y = join(v);
    return split(at::matmul(q, y) + mask() * 3 * x * x * y);
  }
  at::Tensor mixed_product(const Tensors& v) const { return at::matmul(b.t(), join(v)); }
  Tensors upper_gradient(const Tensors& theta) const { return split(w + join(theta)); }
};

struct Adjoints {
  Tensors theta;
  at::Tensor lambda;
};

/// By UpdateRule, over the steps of torch::optim. `tell_clip`: whether the rule is told that
/// gradients were clipped.
Adjoints reversed(const Curved& problem, const Setup& setup, const Tensors& start,
                  const at::Tensor& lambda, bool tell_clip = true) {
  auto parameters = clone(start);
  for (auto& p : parameters) {
    p.requires_grad_();
  }
  const auto optimizer = make_optimizer(setup, parameters);
  std::string why;
  const auto rule = UpdateRule::of(*optimizer, parameters, why);
  REQUIRE(rule);
  std::vector<Tensors> trajectory;
  std::vector<std::shared_ptr<const StepDerivative>> steps;
  {
    const at::NoGradGuard no_grad;
    for (int step = 0; step < kSteps; ++step) {
      trajectory.push_back(clone(parameters));
      const auto raw = problem.gradient(trajectory.back(), lambda, step);
      const auto gradients = clipped(raw, problem.largest);
      steps.push_back(rule->observe(
          parameters, gradients,
          tell_clip ? Clipping(norm(gradients) / norm(raw), raw) : Clipping(), false, true));
      set_gradients(parameters, gradients);
      optimizer->step();
    }
  }
  Adjoints result{problem.upper_gradient(clone(parameters)), at::zeros({2}, kDouble)};
  std::vector<Tensors> moments;
  for (int step = kSteps - 1; step >= 0; --step) {
    const auto g = steps[static_cast<size_t>(step)]->reverse(result.theta, moments);
    add_scaled(result.theta, problem.hessian_product(trajectory[static_cast<size_t>(step)], g));
    result.lambda += problem.mixed_product(g);
  }
  if (setup.kind == Kind::sgd) {
    // The first step of a parameter makes its momentum buffer from nothing.
    for (const auto& list : moments) {
      CHECK(norm(list) == 0);
    }
  }
  return result;
}

/// By autograd through the functional steps.
Adjoints unrolled(const Curved& problem, const Setup& setup, const Tensors& start,
                  const at::Tensor& lambda, bool guarded = false) {
  Tensors inputs = clone(start);
  inputs.push_back(lambda.clone());
  for (auto& t : inputs) {
    t.requires_grad_();
  }
  Tensors theta{inputs[0], inputs[1]};
  FunctionalUpdate update(setup, 2, guarded);
  for (int step = 0; step < kSteps; ++step) {
    theta = update(theta, clipped(problem.gradient(theta, inputs[2], step), problem.largest));
  }
  const auto x = Curved::join(theta);
  const auto g = torch::autograd::grad({at::dot(problem.w, x) + 0.5 * at::dot(x, x)}, inputs);
  return {{g[0], g[1]}, g[2]};
}

double error(const Adjoints& a, const Adjoints& b) {
  return std::max(relative_error(a.theta, b.theta), relative_error({a.lambda}, {b.lambda}));
}

const Tensors& start() {
  static const Tensors value = [] {
    torch::manual_seed(21);
    return Tensors{at::randn({3}, kDouble), at::randn({2, 2}, kDouble)};
  }();
  return value;
}
const at::Tensor& lambda() {
  static const at::Tensor value = at::full({2}, 0.5, kDouble);
  return value;
}

}  // namespace

TEST_CASE("reverse mode through five steps is autograd through them", "[optim]") {
  for (const auto& setup : setups()) {
    for (const double largest : {0.0, 0.5}) {
      for (const int skipped_at : {-1, 0, 2}) {
        INFO(setup.name << ", clipped to " << largest << ", second parameter skipped at "
                        << skipped_at);
        torch::manual_seed(22);
        Curved problem;
        problem.largest = largest;
        problem.skipped_at = skipped_at;
        CHECK(error(reversed(problem, setup, start(), lambda()),
                    unrolled(problem, setup, start(), lambda())) < 1e-12);
      }
    }
  }
}

TEST_CASE("reverse mode rejects a clip factor left out", "[optim][control]") {
  for (const auto& setup : setups()) {
    INFO(setup.name);
    torch::manual_seed(23);
    Curved problem;
    problem.largest = 0.5;
    CHECK(error(reversed(problem, setup, start(), lambda(), false),
                unrolled(problem, setup, start(), lambda())) > 1e-3);
  }
}

TEST_CASE("a dead unit passes its adjoint on, where autograd through Adam gives not-a-number",
          "[optim]") {
  for (const auto& setup : setups()) {
    if (setup.group(0).weight_decay != 0 && setup.kind != Kind::adamw) {
      continue;  // weight decay is a gradient: nothing is dead
    }
    INFO(setup.name);
    torch::manual_seed(24);
    Curved problem;
    problem.kill(1);
    const auto ours = reversed(problem, setup, start(), lambda());
    REQUIRE(all_finite(ours.theta));
    REQUIRE(all_finite({ours.lambda}));
    CHECK(error(ours, unrolled(problem, setup, start(), lambda(), true)) < 1e-12);
    if (setup.kind != Kind::sgd) {
      CHECK(std::isnan(unrolled(problem, setup, start(), lambda()).theta[0][1].item<double>()));
      // The element only decays, whatever the others do.
      const auto& group = setup.group(0);
      const double decay =
          setup.kind == Kind::adamw ? std::pow(1 - group.lr * group.weight_decay, kSteps) : 1.0;
      const double expected =
          (problem.w[1].item<double>() + start()[0][1].item<double>() * decay) * decay;
      CHECK(ours.theta[0][1].item<double>() == Approx(expected).epsilon(1e-13));
    }
  }
}

TEST_CASE("A of a unit that is dead at this step and before is finite and right", "[optim]") {
  for (const Kind kind : {Kind::adam, Kind::adamw}) {
    const Setup setup{"", kind, {{.lr = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-2}}};
    torch::manual_seed(25);
    Tensors parameters{at::randn({3}, kDouble).requires_grad_()};
    const auto optimizer = make_optimizer(setup, parameters);
    std::string why;
    const auto rule = UpdateRule::of(*optimizer, parameters, why);
    for (int t = 1; t <= 3; ++t) {
      auto g = at::randn({3}, kDouble);
      g[1] = 0;
      const auto a =
          rule->observe(parameters, {g}, {}, true, false)->apply({at::ones({3}, kDouble)});
      REQUIRE(all_finite(a));
      CHECK(a[0][1].item<double>() ==
            Approx(0.1 * 0.1 / ((1 - std::pow(0.9, t)) * 1e-2)).epsilon(1e-13));
      set_gradients(parameters, {g});
      optimizer->step();
    }
  }
}

TEST_CASE("observing changes neither the step nor the gradients", "[optim]") {
  for (const auto& setup : setups()) {
    INFO(setup.name);
    torch::manual_seed(26);
    Tensors watched = clone(start()), plain = clone(start());
    for (auto* list : {&watched, &plain}) {
      for (auto& p : *list) {
        p.requires_grad_();
      }
    }
    const auto a = make_optimizer(setup, watched), b = make_optimizer(setup, plain);
    std::string why;
    const auto rule = UpdateRule::of(*a, watched, why);
    for (int step = 0; step < 3; ++step) {
      const Tensors g{at::randn({3}, kDouble), at::randn({2, 2}, kDouble)};
      set_gradients(watched, clone(g));
      set_gradients(plain, clone(g));
      const auto derivative =
          rule->observe(watched, {watched[0].grad(), watched[1].grad()}, {}, true, true);
      a->step();
      b->step();
      CHECK(at::equal(watched[0], plain[0]));
      CHECK(at::equal(watched[1], plain[1]));
      CHECK(at::equal(watched[0].grad(), g[0]));
    }
  }
}
