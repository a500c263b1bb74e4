// check_hypergradient chooses its steps: exact methods pass whatever the size of the upper
// parameters, wrong ones do not, and where differences cannot tell the report says so.
#include "curved.h"
#include "mlo/check.h"
#include "mlo/error.h"
#include "mlo/hypergradient/presets.h"

#include <ATen/ATen.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "catch.h"

using namespace mlo;
using namespace mlo::testing;

namespace {

// A regression whose rows are weighted by exp(λ), and its targets shifted by an offset of any size.
struct Weighted final : Problem {
  Weighted(at::Tensor w, at::Tensor log_weights, at::Tensor offset, double unit)
      : Problem(trains(w)), w(w), log_weights(log_weights), offset(offset), unit(unit) {}
  Evaluation loss(const Batch& batch) override {
    const at::Tensor errors = batch[0].mv(w) - batch[1] - 0.1 * (offset / unit).tanh();
    return (log_weights.exp() * errors.square()).mean();
  }
  at::Tensor w, log_weights, offset;
  double unit;
};

struct HeldOut final : Problem {
  HeldOut(at::Tensor log_weights, at::Tensor offset, at::Tensor w)
      : Problem(trains(log_weights, offset)), w(w) {}
  Evaluation loss(const Batch& batch) override {
    return (batch[0].mv(w) - batch[1]).square().mean();
  }
  at::Tensor w;
};

struct Case {
  at::ScalarType dtype = at::kDouble;
  double size = 0.0;         // of the log-weights
  double offset_size = 0.0;  // of the offset, in its own unit: 1 where it is 0
  double lr = 0.1;
  int64_t rows = 16;
  double factor = 1.0;  // on what the lower level's visit subtracts: 1 is right
};

CheckReport check(const Case& c, const CheckOptions& options = {}) {
  torch::manual_seed(7);
  const at::Tensor x = torch::randn({2, c.rows, 4}, at::kDouble).to(c.dtype),
                   truth = torch::randn({4}, at::kDouble).to(c.dtype);
  const auto rows = [&](int64_t part) {
    return Batch{x[part],
                 x[part].mv(truth) + 0.3 * torch::randn({c.rows}, at::kDouble).to(c.dtype)};
  };
  at::Tensor w = torch::zeros({4}, c.dtype).requires_grad_();
  at::Tensor log_weights =
      (c.size * torch::randn({c.rows}, at::kDouble)).to(c.dtype).requires_grad_();
  const double unit = c.offset_size > 0.0 ? c.offset_size : 1.0;
  at::Tensor offset = torch::full({}, 0.7 * c.offset_size, c.dtype).requires_grad_();
  Engine engine;
  engine.add("fit", Weighted(w, log_weights, offset, unit),
             {.optimizer = sgd({.lr = c.lr}),
              .data = rows(0),
              .best_response = faulty(one_step(), c.factor)});
  engine.add("weights", HeldOut(log_weights, offset, w),
             {.optimizer = sgd({.lr = 0.0}), .data = rows(1)});
  for (int i = 0; i < 3; ++i) engine.step();
  return check_hypergradient(engine, options);
}

}  // namespace

TEST_CASE("an exact method passes the check whatever the size of the upper parameters") {
  for (const double size : {0.0, 1e-12, 1e-4, 1e-2, 1.0})
    for (const double lr : {1e-1, 1e-4}) {
      INFO("log-weights of size " << size << ", lower lr " << lr);
      const CheckReport exact = check({.size = size, .lr = lr});
      INFO(exact.to_string());
      CHECK(exact.steps_taken.relative_error < 1e-6);
      CHECK(exact.agrees(1e-4));
      const CheckReport wrong = check({.size = size, .lr = lr, .factor = 1.01});
      CHECK(wrong.verdict(9e-3) == Verdict::disagrees);
      CHECK(wrong.steps_taken.relative_error == Approx(0.01).epsilon(1e-3));
    }
  for (const double size : {0.0, 1e-12, 1e-4, 1e-2, 1.0})
    for (const double lr : {1e-1, 1e-3}) {
      INFO("float32, log-weights of size " << size << ", lower lr " << lr);
      const CheckReport exact = check({.dtype = at::kFloat, .size = size, .lr = lr});
      INFO(exact.to_string());
      CHECK(exact.steps_taken.relative_error < 0.05);
      CHECK(exact.agrees(0.05));
      // What is wrong by a tenth is seen; by a hundredth, where the derivative is not small against
      // the loss's rounding.
      CHECK(check({.dtype = at::kFloat, .size = size, .lr = lr, .factor = 0.9}).verdict(0.05) ==
            Verdict::disagrees);
      const CheckReport slightly =
          check({.dtype = at::kFloat, .size = size, .lr = lr, .factor = 1.01});
      INFO(slightly.to_string());
      CHECK(slightly.verdict(2e-3) != Verdict::agrees);
      if (lr == 1e-1) CHECK(slightly.verdict(4e-3) == Verdict::disagrees);
    }
}

TEST_CASE("an exact method passes the check with upper tensors of very different sizes") {
  for (const double offset : {1e6, 1.0, 1e-3, 1e-6})
    for (const double size : {0.0, 1.0})
      for (const int64_t rows : {16, 200}) {
        INFO("offset of size " << offset << ", log-weights of size " << size << ", " << rows
                               << " rows");
        const CheckReport exact = check({.size = size, .offset_size = offset, .rows = rows});
        INFO(exact.to_string());
        CHECK(exact.steps_taken.relative_error < 1e-6);
        CHECK(exact.agrees(1e-4));
        const CheckReport single =
            check({.dtype = at::kFloat, .size = size, .offset_size = offset, .rows = rows});
        INFO(single.to_string());
        if (offset >= 1e-3) CHECK(single.agrees(0.05));
        CHECK(single.verdict(0.05) != Verdict::disagrees);
      }
}

TEST_CASE("the check says how good its differences are, and that it cannot tell") {
  // A derivative that float32 does not see: a step of 1e-7 below.
  const CheckReport lost = check({.dtype = at::kFloat, .lr = 1e-7});
  INFO(lost.to_string());
  CHECK(lost.steps_taken.uncertainty > 0.05);
  CHECK(lost.verdict(0.05) == Verdict::cannot_tell);
  CHECK_FALSE(lost.agrees(0.05));
  CHECK_THAT(lost.to_string(), Contains("next: errors below") && Contains("kDouble"));
  // A radius of the caller's own, too small and too large.
  const CheckReport small = check({}, {.radius = 1e-13}), large = check({}, {.radius = 1.0});
  for (const CheckReport* report : {&small, &large}) {
    INFO(report->to_string());
    CHECK(report->verdict(1e-4) == Verdict::cannot_tell);
    CHECK(report->steps_taken.relative_error <= report->steps_taken.uncertainty);
  }
  CHECK_THROWS_AS(check({}).agrees(0.0), ConfigError);
}

TEST_CASE("the check names the coordinate that is furthest apart") {
  const CheckReport wrong = check({.factor = 1.01});
  REQUIRE(wrong.steps_taken.worst);
  CHECK(wrong.exact_directions);
  CHECK(wrong.steps_taken.worst->parameter == "parameter0");
  REQUIRE(wrong.steps_taken.worst->index.size() == 1);
  CHECK(wrong.steps_taken.worst->value ==
        Approx(1.01 * wrong.steps_taken.worst->reference).epsilon(1e-5));
  CHECK_THAT(wrong.to_string(), Contains("furthest apart: 'parameter0'["));
  // More elements than directions: the scalar is differenced as it is, of the other tensor random
  // directions are taken.
  const CheckReport many = check({.offset_size = 1.0, .rows = 200, .factor = 1.01});
  CHECK_FALSE(many.exact_directions);
  CHECK(many.directions == 64);
  CHECK(many.steps_taken.relative_error == Approx(0.01).epsilon(1e-3));
  // More tensors than directions.
  const CheckReport one = check({.offset_size = 1e6, .rows = 200}, {.directions = 1});
  CHECK(one.directions == 1);
  CHECK(one.steps_taken.relative_error < 1e-5);
}

TEST_CASE("the check's steps stay where the loss is defined") {
  for (const double penalty : {1e-3, 1e-6, 1e-9}) {  // a negative one has no logarithm
    const at::Tensor w = torch::zeros({3}, at::kDouble).requires_grad_(),
                     p = torch::full({}, penalty, at::kDouble).requires_grad_();
    struct Lower final : Problem {
      Lower(at::Tensor w, at::Tensor p) : Problem(trains(w)), w(w), p(p) {}
      Evaluation loss(const Batch&) override {
        return (w - 1.0).square().sum() + p.log().square() * 0.01 * (w + 1.0).square().sum();
      }
      at::Tensor w, p;
    };
    struct Upper final : Problem {
      Upper(at::Tensor p, at::Tensor w) : Problem(trains(p)), w(w) {}
      Evaluation loss(const Batch&) override { return (w - 0.5).square().sum(); }
      at::Tensor w;
    };
    Engine engine;
    engine.add("fit", Lower(w, p), {.optimizer = sgd({.lr = 0.1})});
    engine.add("penalty", Upper(p, w), {.optimizer = sgd({.lr = 0.0})});
    engine.step();
    const CheckReport report = check_hypergradient(engine);
    INFO("penalty " << penalty << "\n" << report.to_string());
    CHECK(report.agrees(1e-4));
  }
}

TEST_CASE("the check of many small tensors costs what its directions cost") {
  const at::Tensor w = torch::zeros({3}, at::kDouble).requires_grad_();
  Tensors small;
  torch::manual_seed(3);
  for (int i = 0; i < 40; ++i)
    small.push_back((1e-2 * torch::randn({3}, at::kDouble)).requires_grad_());
  struct Lower final : Problem {
    Lower(at::Tensor w, Tensors small) : Problem(trains(w)), w(w), small(std::move(small)) {}
    Evaluation loss(const Batch&) override {
      return (w - at::stack(small).sum(0).tanh()).square().sum();
    }
    at::Tensor w;
    Tensors small;
  };
  struct Upper final : Problem {
    static Trains all(const Tensors& small) {
      Trains result;
      for (std::size_t i = 0; i < small.size(); ++i)
        result.add("small" + std::to_string(i), small[i]);
      return result;
    }
    Upper(const Tensors& small, at::Tensor w) : Problem(all(small)), w(w) {}
    Evaluation loss(const Batch&) override { return (w - 1.0).square().sum(); }
    at::Tensor w;
  };
  Engine engine;
  engine.add("fit", Lower(w, small), {.optimizer = sgd({.lr = 0.1})});
  engine.add("many", Upper(small, w), {.optimizer = sgd({.lr = 0.1})});
  const CheckReport report = check_hypergradient(engine, {.directions = 4});
  INFO(report.to_string());
  CHECK(report.directions == 4);
  CHECK(report.agrees(1e-4));
  CHECK(report.evaluations < 100);
  CHECK_THAT(report.steps_taken.worst->parameter, Contains("small") && Contains(", small"));
}
