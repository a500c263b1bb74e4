#include "optim/update_rule.h"

#include "functional_update.h"

#include <cmath>

#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>
#include "complaint.h"

using namespace mlo;
using namespace mlo::testing;

namespace {

constexpr double kExact = 1e-12;       // against autograd, in double
constexpr double kDifferences = 1e-6;  // against central differences of radius 1e-6

/// Two parameters of 3 and 2×2 elements. `strided`: with gaps in memory, so that the formulas run
/// on ATen's operators.
Tensors make_parameters(bool strided) {
  if (strided) {
    auto a = at::randn({6}, kDouble).slice(0, 0, 6, 2),
         b = at::randn({2, 4}, kDouble).slice(1, 0, 4, 2);
    return {a.requires_grad_(), b.requires_grad_()};
  }
  return {at::randn({3}, kDouble).requires_grad_(), at::randn({2, 2}, kDouble).requires_grad_()};
}

Tensors random_like(const Tensors& parameters) {
  Tensors result;
  for (const auto& p : parameters) {
    result.push_back(at::randn(p.sizes(), kDouble));
  }
  return result;
}

std::unique_ptr<UpdateRule> rule_for(torch::optim::Optimizer& optimizer,
                                     const Tensors& parameters) {
  std::string why;
  auto rule = UpdateRule::of(optimizer, parameters, why);
  INFO(why);
  REQUIRE(rule);
  REQUIRE(why.empty());
  return rule;
}

double norm_of(const Tensors& tensors) { return norm(tensors); }

/// An optimizer, the same as a function, and the gradients of the step that is looked at: the t-th.
struct Scene {
  Scene(const Setup& setup, int64_t t, double largest_norm, bool strided = false)
      : parameters(make_parameters(strided)),
        optimizer(make_optimizer(setup, parameters)),
        functional(setup, parameters.size()),
        rule(rule_for(*optimizer, parameters)),
        largest(largest_norm) {
    for (int64_t step = 1; step < t; ++step) {
      const auto gradients = clipped(random_like(parameters), largest);
      functional(clone(parameters), gradients);
      set_gradients(parameters, gradients);
      optimizer->step();
    }
    raw = random_like(parameters);
  }

  std::shared_ptr<const StepDerivative> observe() {
    const auto gradients = clipped(raw, largest);
    return rule->observe(parameters, gradients, Clipping(norm_of(gradients) / norm_of(raw), raw),
                         true, false);
  }

  /// A a by autograd through the functional step.
  Tensors autograd(const Tensors& a) const {
    Tensors leaves;
    for (const auto& g : raw) {
      leaves.push_back(g.detach().requires_grad_());
    }
    auto step = functional;
    const auto theta = step(clone(parameters), clipped(leaves, largest));
    auto result = torch::autograd::grad(theta, leaves, a);
    for (auto& t : result) {
      t.neg_();
    }
    return result;
  }

  /// A a by central differences of a·θ'.
  Tensors differences(const Tensors& a) const {
    constexpr double kRadius = 1e-6;
    auto shifted = clone(raw);
    auto result = zeros_like(raw);
    const auto value = [&] {
      auto step = functional;
      return dot(a, step(clone(parameters), clipped(shifted, largest)));
    };
    for (size_t i = 0; i < raw.size(); ++i) {
      for (int64_t k = 0; k < raw[i].numel(); ++k) {
        double& x = shifted[i].data_ptr<double>()[k];
        const double at = x;
        x = at + kRadius;
        const double above = value();
        x = at - kRadius;
        const double below = value();
        x = at;
        result[i].data_ptr<double>()[k] = -(above - below) / (2 * kRadius);
      }
    }
    return result;
  }

  Tensors parameters;
  std::shared_ptr<torch::optim::Optimizer> optimizer;
  FunctionalUpdate functional;
  std::unique_ptr<UpdateRule> rule;
  double largest;
  Tensors raw;
};

}  // namespace

TEST_CASE("the functional updates of these tests are torch::optim's", "[optim]") {
  for (const auto& setup : setups()) {
    INFO(setup.name);
    torch::manual_seed(1);
    const auto parameters = make_parameters(false);
    const auto optimizer = make_optimizer(setup, parameters);
    FunctionalUpdate functional(setup, parameters.size());
    auto theta = clone(parameters);
    for (int step = 0; step < 5; ++step) {
      auto gradients = random_like(parameters);
      if (step == 2) {
        gradients[1] = at::Tensor();
      }
      set_gradients(parameters, clone(gradients));
      optimizer->step();
      theta = functional(theta, gradients);
      REQUIRE(relative_error(theta, parameters) < 1e-14);
    }
  }
}

TEST_CASE("A is the derivative of the step, by autograd and by differences", "[optim]") {
  for (const auto& setup : setups()) {
    for (const int64_t t : {1, 2, 5}) {
      for (const double largest : {0.0, 0.5}) {
        for (const bool strided : {false, true}) {
          INFO(setup.name << ", step " << t << ", clipped to " << largest << ", strided "
                          << strided);
          torch::manual_seed(10 + t);
          Scene scene(setup, t, largest, strided);
          const auto a = random_like(scene.parameters);
          const auto derivative = scene.observe();
          // The step is taken before the derivative is asked for, and moves the optimizer's state
          // in place.
          set_gradients(scene.parameters, clipped(scene.raw, largest));
          const auto autograd = scene.autograd(a), differences = scene.differences(a);
          scene.optimizer->step();
          CHECK(relative_error(derivative->apply(a), autograd) < kExact);
          CHECK(relative_error(differences, autograd) < kDifferences);
          for (size_t i = 0; i < 2; ++i) {
            CHECK(derivative->learning_rates()[i] == setup.group(i).lr);
          }
        }
      }
    }
  }
}

TEST_CASE("the comparison rejects what is nearly A", "[optim][control]") {
  torch::manual_seed(3);
  for (const auto& setup : setups()) {
    if (setup.kind == Kind::sgd) {
      continue;
    }
    INFO(setup.name);
    Scene scene(setup, 5, 0.0);
    const auto a = random_like(scene.parameters);
    const auto right = scene.autograd(a);

    SECTION(setup.name + ": the learning rate in place of A") {
      auto wrong = a;
      for (size_t i = 0; i < wrong.size(); ++i) {
        wrong[i] = a[i] * setup.group(i).lr;
      }
      CHECK(relative_error(wrong, right) > 1e-2);
    }
    SECTION(setup.name + ": A at the step after") {
      set_gradients(scene.parameters, scene.raw);
      scene.optimizer->step();
      CHECK(relative_error(scene.observe()->apply(a), right) > 1e-2);
    }
    SECTION(setup.name + ": the step count off by one") {
      for (auto& [key, state] : scene.optimizer->state()) {
        if (auto* adam = dynamic_cast<torch::optim::AdamParamState*>(state.get())) {
          adam->step(adam->step() + 1);
        } else {
          auto& adamw = dynamic_cast<torch::optim::AdamWParamState&>(*state);
          adamw.step(adamw.step() + 1);
        }
      }
      CHECK(relative_error(scene.observe()->apply(a), right) > 1e-3);
    }
  }
}

TEST_CASE("clipping that is not asked about leaves a wrong A", "[optim][control]") {
  torch::manual_seed(4);
  Scene scene(setups()[2], 2, 0.5);
  const auto a = random_like(scene.parameters);
  const auto unclipped =
      scene.rule->observe(scene.parameters, clipped(scene.raw, 0.5), {}, true, false);
  CHECK(relative_error(unclipped->apply(a), scene.autograd(a)) > 1e-1);
}

TEST_CASE("A of Adam keeps its digits where the textbook form loses them", "[optim]") {
  // At t = 1: θ' = θ − lr·g/(|g| + ε), so A = lr·ε/(|g| + ε)². The textbook form subtracts two
  // numbers that agree to eight digits.
  const Setup setup{"Adam", Kind::adam, {{.lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}}};
  torch::manual_seed(5);
  Scene scene(setup, 1, 0.0);
  Tensors expected;
  for (const auto& g : scene.raw) {
    expected.push_back(0.1 * 1e-8 / (g.abs() + 1e-8).square());
  }
  const Tensors ones{at::ones({3}, kDouble), at::ones({2, 2}, kDouble)};
  CHECK(relative_error(scene.observe()->apply(ones), expected) < kExact);
  CHECK(relative_error(scene.autograd(ones), expected) > kExact);
}

TEST_CASE("a float32 step has a float32 A, also where gradients are tiny", "[optim]") {
  for (const double size : {1.0, 1e-10, 1e-17}) {
    INFO("gradients of " << size);
    torch::manual_seed(6);
    const Setup setup{
        "Adam", Kind::adam, {{.lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-12}}};
    Tensors wide{at::randn({50}, kDouble).requires_grad_()},
        narrow{wide[0].detach().to(at::kFloat).requires_grad_()};
    const auto wide_optimizer = make_optimizer(setup, wide),
               narrow_optimizer = make_optimizer(setup, narrow);
    const auto wide_rule = rule_for(*wide_optimizer, wide),
               narrow_rule = rule_for(*narrow_optimizer, narrow);
    for (int step = 0; step < 3; ++step) {
      const Tensors gradient{(size * at::randn({50}, kDouble)).to(at::kFloat)};
      const Tensors same{gradient[0].to(at::kDouble)};
      const auto a =
          narrow_rule->observe(narrow, gradient, {}, true, false)->apply({at::ones({50})});
      REQUIRE(a[0].scalar_type() == at::kFloat);
      REQUIRE(all_finite(a));
      const auto expected =
          wide_rule->observe(wide, same, {}, true, false)->apply({at::ones({50}, kDouble)});
      CHECK(relative_error(a, expected) < 1e-5);
      set_gradients(wide, same);
      set_gradients(narrow, gradient);
      wide_optimizer->step();
      narrow_optimizer->step();
    }
  }
}

TEST_CASE("adjoints stay wide for parameters in half precision", "[optim]") {
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    for (const auto& setup : setups()) {
      INFO(setup.name << ' ' << toString(dtype));
      torch::manual_seed(7);
      Tensors parameters{at::randn({3}).to(dtype).requires_grad_(),
                         at::randn({2, 2}).to(dtype).requires_grad_()};
      const auto optimizer = make_optimizer(setup, parameters);
      const auto rule = rule_for(*optimizer, parameters);
      for (int step = 0; step < 2; ++step) {
        const Tensors gradients{at::randn({3}).to(dtype), at::randn({2, 2}).to(dtype)};
        const auto derivative =
            rule->observe(parameters, gradients, Clipping(0.5, gradients), true, true);
        Tensors theta{at::randn({3}), at::randn({2, 2}, kDouble)};
        std::vector<Tensors> moments;
        for (const auto& result :
             {derivative->apply(theta), derivative->reverse(theta, moments), theta}) {
          CHECK(result[0].scalar_type() == at::kFloat);
          CHECK(result[1].scalar_type() == at::kDouble);
          CHECK(all_finite(result));
        }
        set_gradients(parameters, gradients);
        optimizer->step();
      }
    }
  }
}

TEST_CASE("a parameter without a gradient was skipped", "[optim]") {
  for (const auto& setup : setups()) {
    INFO(setup.name);
    torch::manual_seed(8);
    Scene scene(setup, 2, 0.0);
    const auto a = random_like(scene.parameters);
    const Tensors gradients{scene.raw[0], at::Tensor()};
    const auto derivative = scene.rule->observe(scene.parameters, gradients, {}, true, true);
    const auto result = derivative->apply(a);
    CHECK(result[1].count_nonzero().item<int64_t>() == 0);
    CHECK(relative_error({result[0]}, {scene.autograd(a)[0]}) < kExact);

    auto theta = a;
    std::vector<Tensors> moments{random_like(a), random_like(a)};
    const auto before = moments;
    CHECK(derivative->reverse(theta, moments)[1].count_nonzero().item<int64_t>() == 0);
    CHECK(at::equal(theta[1], a[1]));
    CHECK(at::equal(moments[0][1], before[0][1]));
    CHECK(at::equal(moments[1][1], before[1][1]));
  }
}

TEST_CASE("the learning rate is that of the step, before a schedule moves it", "[optim]") {
  torch::manual_seed(9);
  Scene scene(setups()[0], 2, 0.0);
  const auto a = random_like(scene.parameters);
  const auto expected = scene.autograd(a);
  const auto derivative = scene.observe();
  scene.optimizer->param_groups()[0].options().set_lr(0.7);
  CHECK(relative_error(derivative->apply(a), expected) < kExact);
  CHECK(derivative->learning_rates()[0] == 0.1);
  CHECK(scene.observe()->learning_rates()[0] == 0.7);
}

namespace {

struct OwnSgd final : torch::optim::SGD {
  using SGD::SGD;
};

std::string refusal(torch::optim::Optimizer& optimizer, const Tensors& parameters) {
  std::string why;
  CHECK(UpdateRule::of(optimizer, parameters, why) == nullptr);
  return why;
}

}  // namespace

TEST_CASE("optimizers whose step is not known are refused by name", "[optim][error]") {
  namespace optim = torch::optim;
  const auto parameters = make_parameters(false);
  optim::RMSprop rmsprop(parameters);
  {
    const auto why = refusal(rmsprop, parameters);
    CHECK(contains(why, "torch::optim::RMSprop"));
    CHECK(contains(why, "known are torch::optim::SGD"));
  }
  optim::Adam amsgrad(parameters, optim::AdamOptions(0.1).amsgrad(true));
  CHECK(contains(refusal(amsgrad, parameters), "torch::optim::Adam with amsgrad"));
  optim::AdamW amsgrad_w(parameters, optim::AdamWOptions(0.1).amsgrad(true));
  CHECK(contains(refusal(amsgrad_w, parameters), "torch::optim::AdamW with amsgrad"));
  OwnSgd own(parameters, optim::SGDOptions(0.1));
  CHECK(contains(refusal(own, parameters), "OwnSgd"));
  optim::SGD partial(Tensors{parameters[0]}, optim::SGDOptions(0.1));
  CHECK(contains(refusal(partial, parameters), "parameter 1 of the level in none of its groups"));
  std::vector<optim::OptimizerParamGroup> groups;
  groups.emplace_back(parameters, std::make_unique<optim::AdamOptions>(0.1));
  optim::SGD mixed(groups, optim::SGDOptions(0.1));
  CHECK(
      contains(refusal(mixed, parameters), "options of another class, torch::optim::AdamOptions"));
}

TEST_CASE("what was not asked for at observe is refused", "[optim][error]") {
  Scene scene(setups()[7], 2, 0.0);
  const auto derivative = scene.rule->observe(scene.parameters, scene.raw, {}, false, false);
  auto theta = random_like(scene.parameters);
  std::vector<Tensors> moments;
  CHECK_THROWS_WITH(derivative->apply(theta), Contains("observed with `scale`"));
  CHECK_THROWS_WITH(derivative->reverse(theta, moments), Contains("observed with `trajectory`"));
}
