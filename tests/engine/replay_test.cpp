// A probe evaluates the function that the step evaluated: what the loss read is put back, and a
// value that differs is refused.
#include "engine/support.h"

#include "replay/values.h"

using mlo::LossError;

namespace {

using MakeMethod = std::function<std::unique_ptr<mlo::Method>()>;

struct Named {
  const char* name;
  MakeMethod make;
  double tolerance = 1e-12;
};

/// Every way of differentiating a single step, and what it may be off by.
const std::vector<Named>& one_step_methods() {
  static const std::vector<Named> methods = {
      {"kept graph", [] { return mlo::one_step(); }},
      {"fresh graph", [] { return mlo::one_step({.keep_graph = false}); }},
      {"differences", [] { return mlo::darts(); }, 1e-7},
      {"duals",
       [] { return mlo::implicit(mlo::reverse_over_forward_oracle(), mlo::identity_solver()); }},
      {"unrolled", [] { return mlo::unrolled(); }},
  };
  return methods;
}

double relative(double a, double b) { return std::abs(a - b) / std::abs(b); }

/// One value that belongs to a module: a buffer, or a frozen parameter.
struct HolderImpl final : torch::nn::Module {
  HolderImpl(bool buffer, double start) {
    value = buffer ? register_buffer("value", number(start))
                   : register_parameter("value", number(start), false);
  }
  at::Tensor value;
};
TORCH_MODULE(Holder);

void write(const at::Tensor& tensor, const at::Tensor& to) {
  const at::NoGradGuard no_grad;
  tensor.copy_(to);
}

/// With hooks that Lambda does not have.
struct Hooked final : mlo::Problem {
  Hooked(mlo::Trains trained, Lambda::Loss loss)
      : Problem(std::move(trained)), function(std::move(loss)) {}
  Evaluation loss(const Batch& batch) override { return function(batch); }
  void on_inner_loop_start() override {
    if (start) start();
  }
  Lambda::Loss function;
  std::function<void()> start;
};

}  // namespace

TEST_CASE("Each micro-batch is evaluated again with the buffers that it read", "[engine][replay]") {
  // A running mean that the loss writes before it reads it; x follows y times it.
  for (const Named& method : one_step_methods()) {
    INFO(method.name);
    const at::Tensor x = leaf(0.2), y = leaf(0.5);
    Holder mean(/*buffer=*/true, 1.0);
    auto options = respond(method.make());
    options.accumulate = 3;
    options.data = [](int64_t i) { return Batch{number(1.0 + static_cast<double>(i))}; };
    Engine engine;
    engine.add("low",
               Lambda(mlo::trains(x).uses(mean),
                      [=](const Batch& batch) {
                        write(mean->value, 0.5 * mean->value + 0.5 * batch[0]);
                        return 0.5 * (x - y * mean->value.clone()).square();
                      }),
               std::move(options));
    engine.add("up", lead(y, x), sgd());
    const double g = engine.hypergradient("up")[0].item<double>();

    const double means[] = {1.0, 1.5, 2.25};
    double step = 0.0, mixed = 0.0;
    for (const double m : means) {
      step += (0.2 - 0.5 * m) / 3.0;
      mixed += m / 3.0;
    }
    const double after = 0.2 - 0.1 * step;
    CHECK(relative(g, 0.1 * 0.5 + (after - 1.0) * 0.1 * mixed) < method.tolerance);
    CHECK(mean->value.item<double>() == 2.25);
  }
}

TEST_CASE("A frozen teacher that moves after the step is the step's own in a probe",
          "[engine][replay]") {
  for (const Named& method : one_step_methods()) {
    if (std::string(method.name) == "kept graph")
      continue;  // which autograd refuses, as the teacher is written in place
    INFO(method.name);
    const at::Tensor x = leaf(0.2), y = leaf(0.5);
    Holder teacher(/*buffer=*/false, 2.0);
    Lambda low(mlo::trains(x).uses(teacher),
               [=](const Batch&) { return 0.5 * (x - y * teacher->value).square(); });
    low.step_hook = [=] { write(teacher->value, 0.5 * teacher->value + 0.5 * x); };
    Engine engine;
    engine.add("low", low, respond(method.make()));
    engine.add("up", lead(y, x), sgd());
    engine.step();
    const double x1 = x.item<double>(), y1 = y.item<double>(), t1 = teacher->value.item<double>();
    CHECK(relative(t1, 1.0 + 0.5 * (0.2 - 0.1 * (0.2 - 0.5 * 2.0))) < 1e-14);

    const State before = engine.state();
    const auto report = mlo::check_hypergradient(engine);
    CHECK(report.steps_taken.relative_error < 1e-6);
    CHECK(difference(engine.state(), before).empty());
    CHECK(teacher->value.item<double>() == t1);

    const double g = engine.hypergradient("up")[0].item<double>();
    const double after = x1 - 0.1 * (x1 - y1 * t1);
    CHECK(relative(g, 0.1 * y1 + (after - 1.0) * 0.1 * t1) < method.tolerance);
    CHECK(relative(teacher->value.item<double>(), 0.5 * t1 + 0.5 * after) < 1e-14);
    CHECK_FALSE(teacher->value.requires_grad());

    engine.load_state(before);  // the teacher belongs to the state
    CHECK(teacher->value.item<double>() == t1);
    State older;  // of a version that did not know it
    for (const auto& [key, value] : before.values())
      if (key.rfind("frozen", 0) != 0)
        older.set(key, key == "engine/version" ? State::Value(int64_t{1}) : value);
    write(teacher->value, number(7.0));
    engine.load_state(older);
    CHECK(teacher->value.item<double>() == 7.0);
  }
}

TEST_CASE("Unrolled goes back through steps between which the teacher moves", "[engine][replay]") {
  const at::Tensor x = leaf(0.2), y = leaf(0.5);
  Holder teacher(/*buffer=*/false, 2.0);
  Lambda low(mlo::trains(x).uses(teacher),
             [=](const Batch&) { return 0.5 * (x - y * teacher->value).square(); });
  low.step_hook = [=] { write(teacher->value, 0.5 * teacher->value); };
  auto options = respond(mlo::unrolled());
  options.unroll = 3;
  Engine engine;
  engine.add("low", low, std::move(options));
  engine.add("up", lead(y, x), sgd());
  const double g = engine.hypergradient("up")[0].item<double>();
  const at::Tensor by_hand = leaf(0.5);
  at::Tensor after = number(0.2);
  for (const double t : {2.0, 1.0, 0.5}) after = after - 0.1 * (after - by_hand * t);
  (0.5 * (after - 1.0).square() + 0.05 * by_hand.square()).backward();
  CHECK(relative(g, by_hand.grad().item<double>()) < 1e-13);
}

TEST_CASE("Values that stay are copied once, values that move anew", "[engine][replay]") {
  const at::Tensor buffer = at::ones({4}), frozen = at::ones({3});
  mlo::Untrained untrained;
  untrained.add(buffer, /*buffer=*/true);
  untrained.add(frozen, /*buffer=*/false);
  CHECK(untrained.buffers() == 1);
  const Tensors first = untrained.snapshot(), second = untrained.snapshot();
  CHECK(second[0].is_same(first[0]));
  CHECK(second[1].is_same(first[1]));

  buffer.mutable_data_ptr<float>()[2] = 5.0F;  // as batch norm does, without a trace
  frozen.mul_(2.0);
  const Tensors third = untrained.snapshot();
  CHECK_FALSE(third[0].is_same(first[0]));
  CHECK_FALSE(third[1].is_same(first[1]));
  const int64_t version = frozen._version();
  untrained.set(first);
  CHECK(at::equal(buffer, at::ones({4})));
  CHECK(at::equal(frozen, at::ones({3})));
  CHECK(frozen._version() == version);
  CHECK(untrained.snapshot()[1].is_same(first[1]));
  untrained.set(third);
  CHECK(buffer[2].item<float>() == 5.0F);
  CHECK(at::equal(frozen, at::full({3}, 2.0)));
  CHECK(frozen._version() == version);

  frozen.set_data(at::full({3}, 4.0));  // other memory, the same version
  const Tensors fourth = untrained.snapshot();
  CHECK(at::equal(fourth[1], at::full({3}, 4.0)));
}

TEST_CASE("Parameters may be set anew when an inner loop starts", "[engine][replay][hooks]") {
  // z takes two steps, each after x was set anew and moved; what the first one read is gone when
  // the sweep comes by.
  const at::Tensor x = leaf(0.0), z = leaf(0.2), y = leaf(0.5);
  int starts = 0;
  Hooked low(mlo::trains(x), [=](const Batch&) { return 0.5 * (x - 1.0).square(); });
  low.start = [&starts, x] { write(x, number(0.5 + 0.7 * starts++)); };
  Engine engine;
  engine.add("low", low, sgd());
  auto options = respond(mlo::unrolled());
  options.unroll = 2;
  engine.add("middle", Lambda(z, [=](const Batch&) { return 0.5 * (z - y * x).square(); }),
             std::move(options));
  engine.add("up", lead(y, z), sgd());
  const double g = engine.hypergradient("up")[0].item<double>();
  CHECK(starts == 2);
  const at::Tensor by_hand = leaf(0.5);
  at::Tensor after = number(0.2);
  for (const double start : {0.5, 1.2})
    after = after - 0.1 * (after - by_hand * (start - 0.1 * (start - 1.0)));
  (0.5 * (after - 1.0).square() + 0.05 * by_hand.square()).backward();
  CHECK(relative(g, by_hand.grad().item<double>()) < 1e-13);
}

TEST_CASE("A trajectory that a hook cuts in two is refused", "[engine][replay][hooks]") {
  const at::Tensor x = leaf(0.0), z = leaf(0.2), y = leaf(0.5);
  bool resets = true;
  Hooked low(mlo::trains(x), [=](const Batch&) { return 0.5 * (x - y).square(); });
  low.start = [&resets, x] {
    if (resets) write(x, number(0.3));
  };
  Engine engine;
  engine.add("low", low, respond(mlo::unrolled()));
  auto options = respond(mlo::one_step());
  options.unroll = 2;
  engine.add("middle", follow(z, x), std::move(options));
  engine.add("up", lead(y, z), sgd());
  check_refused<LossError>(
      [&] { engine.step(); },
      {"level 'low'", "on_inner_loop_start wrote parameters", "unrolled", "mlo::cg()"});
  resets = false;
  CHECK_NOTHROW(engine.step());
}

TEST_CASE("Values that another level's hook has written over are refused",
          "[engine][replay][hooks]") {
  // Two tops; the first one's hook writes what the step below has read, before the second sweeps
  // over that step.
  const at::Tensor target = leaf(0.7), x = leaf(0.2), a = leaf(0.4), b = leaf(0.5);
  bool meddles = true;
  Engine engine;
  engine.add("target", alone(target), sgd(0.01));
  engine.add("low", Lambda(x, [=](const Batch&) { return 0.5 * (x - (a + b) * target).square(); }),
             respond(mlo::darts()));
  auto first = lead(a, x), second = lead(b, x);
  first.step_hook = [&meddles, target] {
    if (meddles) write(target, number(3.0));
  };
  engine.add("first", first, {.optimizer = mlo::sgd({.lr = 0.1}), .top = true});
  engine.add("second", second, {.optimizer = mlo::sgd({.lr = 0.1}), .top = true});
  check_refused<LossError>([&] { engine.step(); },
                           {"level 'low' at step 0", "level 'target'", "another level's hook",
                            "on_inner_loop_start, on_gradient or on_step"});
  meddles = false;
  CHECK_NOTHROW(engine.step());
}

TEST_CASE("A loss that is another one when it is evaluated again is refused",
          "[engine][replay][guard]") {
  for (const Named& method : one_step_methods()) {
    if (std::string(method.name) == "kept graph") continue;  // does not evaluate again
    for (const int accumulate : {1, 2}) {
      INFO(method.name << ", accumulate " << accumulate);
      const at::Tensor x = leaf(0.2), y = leaf(0.5);
      double cache = 1.0;
      bool keeps = true;
      auto options = respond(method.make());
      options.accumulate = accumulate;
      Engine engine;
      engine.add("low",
                 Lambda(x, [&cache, x, y](const Batch&) { return 0.5 * cache * (x - y).square(); }),
                 std::move(options));
      engine.add("up",
                 Lambda(y,
                        [&, x, y](const Batch&) {
                          if (keeps) cache += 1e-4;  // what another loss leaves behind
                          return 0.5 * (x - 1.0).square() + 0.05 * y.square();
                        }),
                 sgd());
      check_refused<LossError>(
          [&] { engine.step(); },
          {"level 'low' at step 0", "the loss was 0.04", "evaluated again", "registered buffer",
           "data()", "NoGradGuard", accumulate > 1 ? "micro-batch 0" : "step 0: the loss"});
      keeps = false;
      for (int i = 0; i < 3; ++i) CHECK_NOTHROW(engine.step());
      keeps = true;  // differences know by now how far their mean may be
      check_refused<LossError>([&] { engine.step(); },
                               {"level 'low' at step 4", "evaluated again"});
    }
  }
}

TEST_CASE("Values written without a trace are noticed by the loss", "[engine][replay][guard]") {
  const at::Tensor x = leaf(0.2), y = leaf(0.5);
  Holder teacher(/*buffer=*/false, 2.0);
  Lambda low(mlo::trains(x).uses(teacher),
             [=](const Batch&) { return 0.5 * (x - y * teacher->value).square(); });
  low.step_hook = [=] { teacher->value.data().mul_(0.9); };
  Engine engine;
  engine.add("low", low, respond(mlo::darts()));
  engine.add("up", lead(y, x), sgd());
  check_refused<LossError>(
      [&] {
        for (int i = 0; i < 3; ++i) engine.step();
      },
      {"level 'low'", "data() or set_data", "NoGradGuard"});
}

TEST_CASE("Sums in another order are no other loss where several threads make them",
          "[engine][replay][guard]") {
  const ThreadsGuard back;
  const at::Tensor x = at::ones({3}).requires_grad_();
  const auto build = [x](int threads, float off) {
    at::set_num_threads(threads);
    auto calls = std::make_shared<int>(0);
    Engine engine;
    engine.add("level",
               Lambda(x,
                      [=](const Batch&) {
                        return x.square().sum() * ((*calls)++ % 2 == 0 ? 1.0F : 1.0F + off);
                      }),
               sgd());
    engine.build();
  };
  CHECK_THROWS_AS(build(1, 5e-7F), LossError);
  CHECK_NOTHROW(build(2, 5e-7F));
  CHECK_THROWS_AS(build(2, 1e-3F), LossError);
}

TEST_CASE("The guard's own evaluations are few and not counted", "[engine][replay][guard]") {
  const at::Tensor x = leaf({0.2, 0.3, 0.4}), y = leaf(0.5);
  int calls = 0;
  Engine engine;
  engine.add("low",
             Lambda(x,
                    [&calls, x, y](const Batch&) {
                      ++calls;
                      return ((x - y).square() + x.pow(4)).sum();
                    }),
             respond(mlo::darts()));
  engine.add(
      "up",
      Lambda(y, [=](const Batch&) { return 0.5 * (x - 1.0).square().sum() + 0.05 * y.square(); }),
      sgd());
  engine.build();
  calls = 0;
  for (int i = 0; i < 64; ++i) engine.step();
  const int64_t counted = engine.counters("low").forwards;
  CHECK(counted == 3 * 64 + 2 * 6);  // and a second radius at visits 2, 4, …, 64
  CHECK(calls - counted >= 1);
  CHECK(calls - counted <= 4);
}

TEST_CASE("Clipping is differentiated at the gradient of before the hook",
          "[engine][replay][clipping]") {
  // The hook adds weight decay of its own, as a constant, to a gradient that clipping has scaled
  // down.
  const at::Tensor start = at::tensor({0.9, -1.4, 0.6}, at::kDouble),
                   extra = at::tensor({0.3, 0.8, -0.5}, at::kDouble);
  const auto lower = [](const at::Tensor& x, const at::Tensor& y) {
    return (x - y).square().sum() + 0.3 * (x * y).pow(3).sum();
  };
  const auto upper = [](const at::Tensor& x) { return 0.5 * (x - 1.0).square().sum(); };
  constexpr double kLargest = 0.5, kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8;
  for (const bool adam : {false, true}) {
    for (const int unroll : {1, 3}) {
      if (adam && unroll == 1)
        continue;  // of Adam's first step next to nothing is left, and autograd loses it in
                   // rounding
      INFO((adam ? "Adam" : "SGD") << ", unroll " << unroll);
      const at::Tensor x = start.clone().requires_grad_(), y = leaf({0.5, 0.2, -0.4});
      Lambda low(x, [=](const Batch&) { return lower(x, y); });
      low.gradient_hook = [extra](Tensors& gradient) { gradient[0].add_(extra); };
      Engine engine;
      engine.add("low", low,
                 {.optimizer = adam ? mlo::adam({.lr = 0.1, .eps = kEps}) : mlo::sgd({.lr = 0.1}),
                  .unroll = unroll,
                  .best_response = unroll == 1 ? mlo::one_step() : mlo::unrolled(),
                  .clip_norm = kLargest});
      engine.add("up", Lambda(y, [=](const Batch&) { return upper(x); }), sgd());
      const at::Tensor g = engine.hypergradient("up")[0];

      const at::Tensor by_hand = at::tensor({0.5, 0.2, -0.4}, at::kDouble).requires_grad_();
      at::Tensor after = start.clone().requires_grad_(), m = at::zeros({3}, at::kDouble), v = m;
      for (int t = 1; t <= unroll; ++t) {
        const at::Tensor raw =
            torch::autograd::grad({lower(after, by_hand)}, {after}, {}, true, true)[0];
        REQUIRE(raw.norm().item<double>() > kLargest);
        const at::Tensor given = raw * (kLargest / raw.norm()) + extra;
        m = kBeta1 * m + (1.0 - kBeta1) * given;
        v = kBeta2 * v + (1.0 - kBeta2) * given.square();
        const at::Tensor update = adam ? (m / (1.0 - std::pow(kBeta1, t))) /
                                             ((v / (1.0 - std::pow(kBeta2, t))).sqrt() + kEps)
                                       : given;
        after = after - 0.1 * update;
      }
      const at::Tensor right = torch::autograd::grad({upper(after)}, {by_hand})[0];
      CHECK((g - right).norm().item<double>() < 1e-9 * right.norm().item<double>());
    }
  }
}
