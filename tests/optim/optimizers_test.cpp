#include "mlo/optim/optimizers.h"

#include "mlo/error.h"

#include <ATen/ATen.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <limits>

#include "complaint.h"

using namespace mlo;

namespace {

Tensors parameters() { return {at::ones({3}).requires_grad_(), at::ones({2, 2}).requires_grad_()}; }

}  // namespace

TEST_CASE("factories make torch's optimizers with the options given", "[optimizers]") {
  const auto p = parameters();
  const auto s = std::dynamic_pointer_cast<torch::optim::SGD>(
      sgd({.lr = 0.2, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true})(p));
  REQUIRE(s);
  const auto& so = static_cast<const torch::optim::SGDOptions&>(s->param_groups()[0].options());
  CHECK(so.lr() == 0.2);
  CHECK(so.momentum() == 0.9);
  CHECK(so.dampening() == 0.0);
  CHECK(so.weight_decay() == 0.01);
  CHECK(so.nesterov());
  const auto d = sgd({.momentum = 0.9, .dampening = 0.3})(p);
  CHECK(static_cast<const torch::optim::SGDOptions&>(d->param_groups()[0].options()).dampening() ==
        0.3);

  const AdamOptions options{
      .lr = 0.3, .beta1 = 0.5, .beta2 = 0.6, .eps = 1e-4, .weight_decay = 0.02};
  const auto check = [&](const auto& o) {
    CHECK(o.lr() == 0.3);
    CHECK(o.betas() == std::make_tuple(0.5, 0.6));
    CHECK(o.eps() == 1e-4);
    CHECK(o.weight_decay() == 0.02);
    CHECK_FALSE(o.amsgrad());
  };
  const auto a = std::dynamic_pointer_cast<torch::optim::Adam>(adam(options)(p));
  REQUIRE(a);
  check(dynamic_cast<const torch::optim::AdamOptions&>(a->param_groups()[0].options()));
  const auto w = std::dynamic_pointer_cast<torch::optim::AdamW>(adamw(options)(p));
  REQUIRE(w);
  check(dynamic_cast<const torch::optim::AdamWOptions&>(w->param_groups()[0].options()));
  CHECK(w->param_groups()[0].params()[1].is_same(p[1]));
  CHECK(w->param_groups()[0].params().size() == 2);
}

TEST_CASE("an optimizer's option out of range is named, with its value and the constraint",
          "[optimizers][error]") {
  const double nan = std::numeric_limits<double>::quiet_NaN(),
               infinity = std::numeric_limits<double>::infinity();
  CHECK(complaint<ConfigError>([] { sgd({.lr = -1}); }) ==
        "SgdOptions::lr = -1; it must be finite and at least 0");
  CHECK(complaint<ConfigError>([=] { sgd({.lr = infinity}); }) ==
        "SgdOptions::lr = inf; it must be finite and at least 0");
  CHECK(complaint<ConfigError>([] { sgd({.momentum = -0.1}); }) ==
        "SgdOptions::momentum = -0.1; it must be finite and at least 0");
  CHECK(complaint<ConfigError>([] { sgd({.dampening = 1.5}); }) ==
        "SgdOptions::dampening = 1.5; it must be between 0 and 1");
  CHECK(complaint<ConfigError>([] { sgd({.weight_decay = -1}); }) ==
        "SgdOptions::weight_decay = -1; it must be finite and at least 0");
  CHECK(complaint<ConfigError>([] { sgd({.nesterov = true}); }) ==
        "SgdOptions::momentum = 0; it must be positive with nesterov");
  CHECK(complaint<ConfigError>([] {
          sgd({.momentum = 0.9, .dampening = 0.5, .nesterov = true});
        }) == "SgdOptions::dampening = 0.5; it must be 0 with nesterov");
  for (const auto& make : {adam, adamw}) {
    CHECK(complaint<ConfigError>([&] { make({.lr = nan}); }) ==
          "AdamOptions::lr = nan; it must be finite and at least 0");
    CHECK(complaint<ConfigError>([&] { make({.beta1 = 1}); }) ==
          "AdamOptions::beta1 = 1; it must be at least 0 and less than 1");
    CHECK(complaint<ConfigError>([&] { make({.beta2 = -0.5}); }) ==
          "AdamOptions::beta2 = -0.5; it must be at least 0 and less than 1");
    CHECK(complaint<ConfigError>([&] { make({.beta2 = nan}); }) ==
          "AdamOptions::beta2 = nan; it must be at least 0 and less than 1");
    CHECK(complaint<ConfigError>([&] { make({.eps = -1}); }) ==
          "AdamOptions::eps = -1; it must be finite and at least 0");
    CHECK(complaint<ConfigError>([&] { make({.weight_decay = nan}); }) ==
          "AdamOptions::weight_decay = nan; it must be finite and at least 0");
  }
}

TEST_CASE("an optimizer of the user's own keeps its groups", "[optimizers]") {
  const auto p = parameters();
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(Tensors{p[1]}, std::make_unique<torch::optim::SGDOptions>(
                                         0.5));  // in another order than the level's
  groups.emplace_back(Tensors{p[0]}, std::make_unique<torch::optim::SGDOptions>(0.1));
  const auto own = std::make_shared<torch::optim::SGD>(groups, torch::optim::SGDOptions(0.1));
  const auto used = use(own)(p);
  CHECK(used == own);
  CHECK(used->param_groups().size() == 2);
  CHECK(used->param_groups()[0].options().get_lr() == 0.5);
  CHECK(use(std::make_shared<torch::optim::RMSprop>(p))(p));
}

TEST_CASE("an optimizer over other parameters than the level's is refused", "[optimizers][error]") {
  const auto p = parameters();
  const auto other = at::ones({5}).requires_grad_();
  const auto with = [&](const Tensors& list) {
    return complaint<ConfigError>([&] { use(std::make_shared<torch::optim::Adagrad>(list))(p); });
  };
  const auto missing = with({p[0]});
  CHECK(contains(missing, "use(torch::optim::Adagrad)"));
  CHECK(contains(missing, "hold 1 parameters, the level trains 2"));
  CHECK(contains(missing, "missing is the level's parameter 1 of shape [2, 2]"));
  CHECK_FALSE(contains(missing, "foreign"));
  CHECK(contains(missing, "make the optimizer from those"));

  const auto foreign = with({p[0], p[1], other});
  CHECK(contains(foreign, "foreign is the optimizer's parameter 2 of shape [5]"));
  CHECK_FALSE(contains(foreign, "missing"));

  const auto both = with({p[1], other});
  CHECK(contains(both, "missing is the level's parameter 0 of shape [3]"));
  CHECK(contains(both, "foreign is the optimizer's parameter 1 of shape [5]"));

  const auto adagrad = std::make_shared<torch::optim::Adagrad>(p);
  adagrad->param_groups()[0].params().push_back(p[0]);
  CHECK(contains(complaint<ConfigError>([&] { use(adagrad)(p); }),
                 "more than once there is the level's parameter 0"));
}

TEST_CASE("an optimizer that a level cannot step is refused", "[optimizers][error]") {
  CHECK(contains(complaint<ConfigError>([] { use(nullptr); }), "the optimizer is null"));
  const auto lbfgs =
      complaint<ConfigError>([] { use(std::make_shared<torch::optim::LBFGS>(parameters())); });
  CHECK(contains(lbfgs, "torch::optim::LBFGS"));
  CHECK(contains(lbfgs, "closure"));
}
