#include <mlo/optim/optimizers.h>

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <sstream>

#include "catch.h"

namespace {

using mlo::Tensors;

Tensors parameters(at::ScalarType type) {
  torch::manual_seed(5);
  Tensors all;
  for (const auto& shape : {std::vector<int64_t>{7, 5}, {5}, {1, 1, 3}, {}, {4, 4}}) {
    all.push_back(torch::randn(shape, type).requires_grad_());
  }
  return all;
}

// The same gradients for both; parameter 4 has none at even steps, parameter 3 only from step 5 on.
void draw_gradients(const Tensors& all, int step) {
  torch::manual_seed(100 + step);
  for (size_t i = 0; i < all.size(); ++i) {
    const at::Tensor gradient = torch::randn_like(all[i]);
    const bool none = (i == 4 && step % 2 == 0) || (i == 3 && step < 5);
    all[i].mutable_grad() = none ? at::Tensor() : gradient;
  }
}

double distance(const Tensors& a, const Tensors& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i)
    most = std::max(most, (a[i] - b[i]).abs().max().item<double>());
  return most;
}

std::string fused_operations(torch::optim::Optimizer& optimizer) {
  static std::string seen;
  seen.clear();
  const auto handle =
      at::addGlobalCallback(at::RecordFunctionCallback([](const at::RecordFunction& f)
                                                           -> std::unique_ptr<at::ObserverContext> {
                              if (std::string(f.name()).find("_fused_") != std::string::npos)
                                seen += f.name();
                              return nullptr;
                            }).scopes({at::RecordScope::FUNCTION}));
  optimizer.step();
  at::removeCallback(handle);
  return seen;
}

struct Case {
  std::string name;
  mlo::OptimizerFactory ours;
  std::function<std::shared_ptr<torch::optim::Optimizer>(const Tensors&)> theirs;
};

std::vector<Case> cases() {
  using namespace torch::optim;
  return {
      {"sgd", mlo::sgd({.lr = 0.1, .weight_decay = 0.03}),
       [](const Tensors& p) {
         return std::make_shared<SGD>(p, SGDOptions(0.1).weight_decay(0.03));
       }},
      {"momentum", mlo::sgd({.lr = 0.1, .momentum = 0.9, .dampening = 0.2, .weight_decay = 0.03}),
       [](const Tensors& p) {
         return std::make_shared<SGD>(
             p, SGDOptions(0.1).momentum(0.9).dampening(0.2).weight_decay(0.03));
       }},
      {"nesterov", mlo::sgd({.lr = 0.1, .momentum = 0.9, .nesterov = true}),
       [](const Tensors& p) {
         return std::make_shared<SGD>(p, SGDOptions(0.1).momentum(0.9).nesterov(true));
       }},
      {"adam",
       mlo::adam({.lr = 0.01, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-10, .weight_decay = 0.1}),
       [](const Tensors& p) {
         return std::make_shared<Adam>(
             p, AdamOptions(0.01).betas({0.8, 0.95}).eps(1e-10).weight_decay(0.1));
       }},
      {"adamw",
       mlo::adamw({.lr = 0.01, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-10, .weight_decay = 0.1}),
       [](const Tensors& p) {
         return std::make_shared<AdamW>(
             p, AdamWOptions(0.01).betas({0.8, 0.95}).eps(1e-10).weight_decay(0.1));
       }}};
}

}  // namespace

TEST_CASE("Fused optimizers take LibTorch's steps to rounding", "[fused]") {
  for (const auto type : {at::kFloat, at::kDouble}) {
    for (const Case& c : cases()) {
      INFO(c.name << " " << at::toString(type));
      const Tensors a = parameters(type), b = parameters(type);
      const auto ours = c.ours(a);
      const auto theirs = c.theirs(b);
      for (int step = 0; step < 20; ++step) {
        draw_gradients(a, step);
        draw_gradients(b, step);
        ours->step();
        theirs->step();
      }
      CHECK(distance(a, b) < (type == at::kFloat ? 2e-6 : 1e-14));
      CHECK(distance(a, parameters(type)) > 0.01);
      draw_gradients(a, 20);
      CHECK_THAT(fused_operations(*ours), Contains("_fused_"));
      CHECK(fused_operations(*theirs).empty());
    }
  }
}

TEST_CASE("The state of fused optimizers is LibTorch's, both ways", "[fused]") {
  for (const Case& c : cases()) {
    INFO(c.name);
    // Ours for ten steps, theirs for ten; and the other way round.
    const Tensors a = parameters(at::kDouble), b = parameters(at::kDouble);
    std::shared_ptr<torch::optim::Optimizer> on_a = c.ours(a), on_b = c.theirs(b);
    for (int step = 0; step < 20; ++step) {
      if (step == 10) {
        for (auto* optimizer : {&on_a, &on_b}) {
          std::stringstream stream;
          torch::serialize::OutputArchive out;
          (*optimizer)->save(out);
          out.save_to(stream);
          *optimizer = optimizer == &on_a ? c.theirs(a) : c.ours(b);
          torch::serialize::InputArchive in;
          in.load_from(stream);
          (*optimizer)->load(in);
        }
      }
      draw_gradients(a, step);
      draw_gradients(b, step);
      on_a->step();
      on_b->step();
    }
    CHECK(distance(a, b) < 1e-14);
  }
}

TEST_CASE("Vectors can be left without weight decay", "[fused]") {
  const Tensors a = parameters(at::kDouble);
  for (const at::Tensor& t : a) t.mutable_grad() = torch::zeros_like(t);
  const Tensors before = parameters(at::kDouble);
  const auto optimizer = mlo::adamw({.lr = 0.1, .weight_decay = 0.5, .decay_vectors = false})(a);
  REQUIRE(optimizer->param_groups().size() == 2);
  optimizer->step();
  for (size_t i = 0; i < a.size(); ++i)
    CHECK(at::allclose(a[i], before[i] * (a[i].dim() < 2 ? 1.0 : 0.95), 1e-12, 0));
  // Without decay, or with all of one kind, there is one group.
  CHECK(mlo::adamw({.decay_vectors = false})(a)->param_groups().size() == 1);
  CHECK(mlo::sgd({.weight_decay = 0.1, .decay_vectors = false})({a[1]})->param_groups().size() ==
        1);
}

TEST_CASE("What the kernels cannot take is stepped as LibTorch does", "[fused]") {
  const at::Tensor a = torch::randn({4, 3}, at::kDouble).t().requires_grad_(),
                   b = a.detach().clone().requires_grad_();
  REQUIRE_FALSE(a.is_contiguous());
  a.mutable_grad() = torch::ones_like(a);
  b.mutable_grad() = torch::ones_like(b);
  const auto ours = mlo::adam()({a});
  CHECK(fused_operations(*ours).empty());
  torch::optim::Adam({b}, torch::optim::AdamOptions(1e-3)).step();
  CHECK(at::equal(a, b));
}
