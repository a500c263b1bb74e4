// Whatever LibTorch throws reaches the user as an mlo::Error that says where; what the user throws
// is left alone.
#include "engine/support.h"

#include <mlo/checkpointed.h>

#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/embedding.h>
#include <torch/optim/adamw.h>

using mlo::ConfigError;
using mlo::Error;
using mlo::LossError;
using mlo::UnsupportedError;

namespace {

struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

at::Tensor wrong() { return at::ones({2, 3}).matmul(at::ones({2, 3})); }

/// Refused with these words, in a message that can be read, with LibTorch's own exception inside.
template <class E, class Call>
void check_named(Call&& call, std::initializer_list<std::string> words, bool nested = true) {
  check_refused<E>(call, words);
  try {
    call();
  } catch (const std::exception& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(message.size() < 700);
    for (const char* noise : {"Exception raised from", ".cpp:", "frame #", "\n"})
      CHECK(message.find(noise) == std::string::npos);
    bool found = false;
    try {
      std::rethrow_if_nested(error);
    } catch (const c10::Error&) {
      found = true;
    } catch (const std::out_of_range&) {
    }
    CHECK(found == nested);
  }
}

std::unique_ptr<Engine> one(Lambda problem, LevelOptions options = sgd(),
                            EngineOptions run = {.steps = 3}) {
  auto engine = std::make_unique<Engine>(std::move(run));
  engine->add("head", std::move(problem), std::move(options));
  return engine;
}

}  // namespace

TEST_CASE("What LibTorch throws in a loss names level and step, short and with the original inside",
          "[engine][errors]") {
  const at::Tensor x = leaf(1.0);
  int good = 0;
  const Lambda problem(
      x, [&, x](const Batch&) { return good-- > 0 ? x.square() : wrong().sum() * x; });
  check_named<LossError>([&] { one(problem)->build(); },
                         {"level 'head' at step 0: the loss", "mat1 and mat2"});
  const auto engine = one(problem);
  good = 1000;
  engine->step();
  good = 0;
  check_named<LossError>([&] { engine->step(); },
                         {"level 'head' at step 1: the loss", "mat1 and mat2"});
  CHECK(x.requires_grad());
  // An internal assertion of LibTorch's has a path in its first line.
  check_named<LossError>(
      [&] {
        one(Lambda(x, [](const Batch&) -> at::Tensor {
          TORCH_INTERNAL_ASSERT(false, "so it goes");
        }))->build();
      },
      {"level 'head' at step 0: the loss", "so it goes"});
}

TEST_CASE("What on_gradient leaves must fit the parameters", "[engine][errors]") {
  using Hook = std::function<void(Tensors&)>;
  const auto numbers = [](std::initializer_list<int64_t> sizes) {
    return torch::ones(sizes, at::kDouble);
  };
  const std::pair<Hook, const char*> wrong_ones[] = {
      {[&](Tensors& g) { g.push_back(numbers({2})); }, "3 tensors for 2 parameters"},
      {[](Tensors& g) { g.clear(); }, "0 tensors for 2 parameters"},
      {[](Tensors& g) { g.pop_back(); }, "1 tensors for 2 parameters"},
      {[&](Tensors& g) { g[1] = numbers({0}); },
       "Double [0] on cpu as the gradient of parameter 'parameter1', which is Double [2] on cpu"},
      {[&](Tensors& g) { g[0] = numbers({}); }, "parameter 'parameter0'"},
      {[&](Tensors& g) { g[0] = numbers({7}); }, "parameter 'parameter0'"},
      {[](Tensors& g) { g[0] = g[0].to(at::kFloat); }, "Float [2]"},
      {[](Tensors& g) { g[0] = g[0].to_sparse(); }, "Sparse"},
      {[](Tensors& g) { g[0] = g[0].to(at::kMeta); }, "on meta"},
  };
  const std::pair<const char*, std::function<mlo::OptimizerFactory()>> optimizers[] = {
      {"sgd", [] { return mlo::sgd({.lr = 0.1, .momentum = 0.9}); }},
      {"adam", [] { return mlo::adam({.lr = 0.1}); }}};
  for (const auto& [name, optimizer] : optimizers) {
    for (const auto& [hook, words] : wrong_ones) {
      INFO(name << ": " << words);
      const at::Tensor x = leaf({1.0, 2.0}), y = leaf({3.0, 4.0});
      Lambda problem(mlo::trains(x, y), [=](const Batch&) { return (x * y).sum(); });
      problem.gradient_hook = hook;
      check_refused<LossError>([&] { one(problem, {.optimizer = optimizer()})->step(); },
                               {"level 'head' at step 0: on_gradient", words});
    }
    const at::Tensor x = leaf({1.0, 2.0});
    Lambda problem(x, [=](const Batch&) { return x.square().sum(); });
    problem.gradient_hook = [](Tensors& g) { g[0].div_(0.0); };
    check_refused<mlo::NonFiniteError>([&] { one(problem, {.optimizer = optimizer()})->step(); },
                                       {"level 'head'", "on_gradient", "not finite"});
    // One number for all, as expand() gives it, is a gradient as others.
    problem.gradient_hook = [](Tensors& g) { g[0] = torch::ones({1}, at::kDouble).expand({2}); };
    one(problem, {.optimizer = optimizer()})->step();
    CHECK(at::allclose(x.detach(), torch::tensor({0.9, 1.9}, at::kDouble), 0.0, 1e-6));
  }
}

TEST_CASE("What LibTorch throws in hooks, data, validations and callbacks is named",
          "[engine][errors]") {
  const at::Tensor x = leaf(1.0), y = leaf(0.5);
  const auto refused_in = [&](const char* hook, auto arm) {
    INFO(hook);
    Engine engine({.steps = 2, .validate_every = 1});
    auto low = engine.add("low", follow(x, y), sgd());
    engine.add("up", lead(y, x), sgd());
    arm(*low);
    check_named<Error>([&] { engine.run(); }, {"level 'low' at step", hook, "mat1 and mat2"});
  };
  refused_in("on_step", [](Lambda& low) { low.step_hook = [] { wrong(); }; });
  refused_in("on_gradient", [](Lambda& low) { low.gradient_hook = [](Tensors&) { wrong(); }; });
  refused_in("validate", [](Lambda& low) {
    low.judge = [] {
      wrong();
      return std::map<std::string, double>{};
    };
  });
  check_named<ConfigError>(
      [&] {
        one(alone(x), {.optimizer = mlo::sgd(), .data = [](int64_t) { return Batch{wrong()}; }})
            ->build();
      },
      {"level 'head' at step 0", "data", "mat1 and mat2"});
  check_named<Error>(
      [&] {
        const auto schedule = [](int64_t) -> double {
          wrong();
          return 1.0;
        };
        one(alone(x), {.optimizer = mlo::sgd(), .schedule = schedule})->run();
      },
      {"level 'head' at step 0: the schedule", "mat1 and mat2"});
  check_named<Error>(
      [&] {
        const auto engine = one(alone(x));
        auto watch = std::make_shared<Watch>();
        watch->step = [](const mlo::StepReport&) { wrong(); };
        engine->add(watch);
        engine->run();
      },
      {"Engine::run", "callback", "mat1 and mat2"});
  check_named<ConfigError>(
      [&] {
        one(alone(x), {.optimizer = [](const Tensors&) -> std::shared_ptr<torch::optim::Optimizer> {
              wrong();
              return nullptr;
            }});
      },
      {"level 'head'", "optimizer", "mat1 and mat2"});
}

TEST_CASE("A backward pass that LibTorch does not have is named", "[engine][errors]") {
  const at::Tensor x = at::ones({1, 1, 8, 8}).requires_grad_();
  const Lambda problem(x, [x](const Batch&) {
    const at::Tensor out = at::scaled_dot_product_attention(x, x, x);
    return torch::autograd::grad({out.square().sum()}, {x}, {}, true, true)[0].square().sum();
  });
  try {
    one(problem)->build();
    FAIL("LibTorch has that derivative now: this test needs another");
  } catch (const LossError& error) {
    const std::string message = error.what();
    INFO(message);
    CHECK_THAT(message, Contains("level 'head' at step 0") && Contains("derivative for"));
    CHECK_THROWS_AS(std::rethrow_if_nested(error), c10::Error);
  }
}

TEST_CASE("What the user throws passes as it is", "[engine][errors]") {
  const at::Tensor x = leaf(1.0);
  CHECK_THROWS_AS(
      one(Lambda(x, [](const Batch&) -> at::Tensor { throw UserError("mine"); }))->build(),
      UserError);
  CHECK_THROWS_AS(one(Lambda(x, [](const Batch&) -> at::Tensor { throw 7; }))->build(), int);
  // In words that LibTorch uses, too.
  const auto throwing = [&](const char* words) {
    return one(Lambda(x, [words](const Batch&) -> at::Tensor { throw std::runtime_error(words); }));
  };
  CHECK_THROWS_WITH(throwing("my part is not implemented")->build(), "my part is not implemented");
  Lambda problem = alone(x);
  problem.step_hook = [] { throw UserError("mine"); };
  CHECK_THROWS_AS(one(problem)->run(), UserError);
  CHECK(message_of<UserError>([&] { one(problem)->run(); }) == "mine");
}

TEST_CASE("A backward pass that LibTorch cannot make is named", "[engine][errors]") {
  const at::Tensor x = leaf({1.0, 2.0});
  // Overwritten after its value was saved.
  check_named<LossError>(
      [&] {
        one(Lambda(x, [x](const Batch&) {
          at::Tensor y = x.exp();
          const at::Tensor z = y.square().sum();
          y.mul_(2.0);
          return z;
        }))->build();
      },
      {"level 'head' at step 0", "gradient of the loss", "inplace"});
}

TEST_CASE("A number that the parameters' type does not hold is named with level and step",
          "[engine][errors]") {
  const at::Tensor x = torch::ones({3}).requires_grad_();
  check_refused<Error>(
      [&] {
        one(alone(x),
            {.optimizer =
                 [](const Tensors& parameters) -> std::shared_ptr<torch::optim::Optimizer> {
              return std::make_shared<torch::optim::AdamW>(
                  parameters, torch::optim::AdamWOptions(1e38));  // and 1e38/(1 − β₁)
            }})
            ->run();
      },
      {"level 'head' at step 0: the optimizer's step", "without overflow", "learning rate"});
}

TEST_CASE(
    "Sparse gradients, expanded and meta parameters, one row under batch norm: named, with the "
    "cure",
    "[engine][errors]") {
  torch::nn::Embedding embedding(torch::nn::EmbeddingOptions(50, 4).sparse(true));
  const at::Tensor index = torch::tensor({1, 2, 3});
  check_named<UnsupportedError>(
      [&] {
        one(Lambda(mlo::trains(embedding), [=](const Batch&) mutable {
          return embedding(index).square().sum();
        }))->build();
      },
      {"level 'head' at step 0", "'weight'", "sparse", "EmbeddingOptions::sparse(false)"}, false);

  const at::Tensor expanded = at::ones({1}, at::kDouble).expand({3}).requires_grad_();
  check_named<ConfigError>([&] { one(alone(expanded)); },
                           {"level 'head'", "'parameter0'", "expand", "clone()"}, false);
  const at::Tensor meta = at::ones({3}, at::TensorOptions().device(at::kMeta)).requires_grad_();
  check_named<ConfigError>([&] { one(alone(meta)); },
                           {"level 'head'", "'parameter0'", "meta", "Engine::add"}, false);
  const at::Tensor x = leaf(1.0);
  check_named<LossError>(
      [&] {
        one(Lambda(x, [](const Batch&) {
          return at::ones({}, at::TensorOptions().device(at::kMeta)).requires_grad_();
        }))->build();
      },
      {"level 'head' at step 0", "meta"}, false);

  torch::nn::BatchNorm1d norm(4);
  const auto rows = [](int64_t i) { return Batch{at::ones({i < 2 ? 5 : 1, 4})}; };
  check_named<LossError>(
      [&] {
        one(Lambda(mlo::trains(norm),
                   [=](const Batch& batch) mutable { return norm(batch[0]).square().sum(); }),
            {.optimizer = mlo::sgd(), .data = rows})
            ->run();
      },
      {"level 'head' at step 2", "more than 1 value per channel", "drop_last"});
}

TEST_CASE("InferenceMode is refused, where it is on and in what was made under it",
          "[engine][errors]") {
  const at::Tensor x = leaf(1.0);
  {
    const auto engine = one(alone(x));
    const c10::InferenceMode inference;
    check_refused<ConfigError>([&] { engine->step(); }, {"InferenceMode", "before the engine"});
  }
  at::Tensor made, row;
  {
    const c10::InferenceMode inference;
    made = leaf(1.0);
    row = at::ones({1}, at::kDouble);
  }
  check_refused<ConfigError>([&] { one(alone(made)); },
                             {"level 'head'", "'parameter0'", "InferenceMode"});
  check_refused<ConfigError>(
      [&] {
        one(Lambda(x, [x](const Batch& batch) { return (x * batch[0]).sum(); }),
            {.optimizer = mlo::sgd(), .data = [row](int64_t) { return Batch{row}; }})
            ->step();
      },
      {"level 'head' at step 0", "InferenceMode", "clone()"});
  CHECK_NOTHROW(one(alone(x))->step());
}

TEST_CASE("A batch, a metric and a method that are not what they should be are named",
          "[engine][errors]") {
  const at::Tensor x = leaf(1.0), y = leaf(0.5);
  check_named<LossError>(
      [&] {
        one(Lambda(x, [x](const Batch& batch) { return (x * batch[1]).sum(); }),
            {.optimizer = mlo::sgd(), .data = Batch{at::ones({1})}})
            ->build();
      },
      {"level 'head' at step 0", "tensor 1 of a batch that has 1", "LevelOptions::data"}, false);
  for (const bool undefined : {false, true})
    check_named<LossError>(
        [&] {
          one(Lambda(x, [=](const Batch&) -> Evaluation {
            return {x.square(), {{"accuracy", undefined ? at::Tensor() : at::ones({2})}}};
          }))->step();
        },
        {"level 'head' at step 0", "metric 'accuracy'", undefined ? "undefined" : "[2]"}, false);

  struct Short final : mlo::Method {
    std::string name() const override { return "short"; }
    mlo::Needs needs() const override { return {}; }
    void visit(mlo::Visit& visit) override { visit.subtract({}); }
  };
  Engine engine;
  engine.add("low", follow(x, y), respond(std::make_unique<Short>()));
  engine.add("up", lead(y, x), sgd());
  check_named<Error>([&] { engine.step(); }, {"level 'low'", "0 tensors for 1"}, false);

  const at::Tensor once = mlo::checkpointed([](const at::Tensor& t) { return t.square(); }, x, {});
  once.backward();
  check_refused<Error>([&] { once.backward(); }, {"mlo::checkpointed", "second time", "retain"});
}
