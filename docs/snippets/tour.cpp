// What the documentation quotes and no example shows. Each function is run by ctest.
#include <mlo/mlo.h>
#include <torch/torch.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>

namespace {

// [problem]
struct Fit final : mlo::Problem {
  Fit(torch::nn::Linear net, at::Tensor log_penalty)
      : Problem(mlo::trains(net)), net(net), log_penalty(log_penalty) {}

  mlo::Evaluation loss(const mlo::Batch& batch) override {
    const at::Tensor error = (net(batch[0]) - batch[1]).square().mean();
    const at::Tensor size = net->weight.square().sum();
    return {error + log_penalty.exp() * size, {{"error", error}, {"size", size}}};
  }

  torch::nn::Linear net;
  at::Tensor log_penalty;
};
// [problem]

// [validate]
struct Penalty final : mlo::Problem {
  Penalty(at::Tensor log_penalty, torch::nn::Linear net, mlo::Batch test)
      : Problem(mlo::trains(log_penalty)), net(net), test(test) {}

  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return (net(batch[0]) - batch[1]).square().mean();
  }

  std::map<std::string, double> validate() override {
    return {{"test_error", loss(test).loss.item<double>()}};
  }

  torch::nn::Linear net;
  mlo::Batch test;
};
// [validate]

mlo::Batch rows(int64_t count) {
  const at::Tensor x = torch::randn({count, 8});
  return {x, x.sum(1, /*keepdim=*/true) + torch::randn({count, 1})};
}

struct Toy {
  torch::nn::Linear net{8, 1};
  at::Tensor log_penalty = torch::full({}, -3.0).requires_grad_();
  mlo::Batch train = rows(64), held_out = rows(64), test = rows(64);
};

void data() {
  Toy toy;
  const at::Tensor x = toy.train[0], y = toy.train[1], pool = torch::randn({256, 8});
  // [data]
  mlo::Data none;                                // the loss gets an empty batch
  mlo::Data always_the_same = mlo::Batch{x, y};  // a full batch
  mlo::Data shuffled =
      mlo::tensor_source({x, y}, {.batch_size = 32});  // endless, a new order each epoch
  mlo::Data labelled_and_not =
      mlo::zip(mlo::tensor_source({x, y}, {.batch_size = 16}),   // batch[0], batch[1]
               mlo::tensor_source({pool}, {.batch_size = 64}));  // batch[2]
  mlo::Data made_up = [](int64_t /*number*/) {
    return mlo::Batch{torch::randn({32, 8})};
  };  // replayable
  // [data]
  TORCH_CHECK(none.empty() && always_the_same.source()->next().size() == 2 &&
              shuffled.source()->next()[0].size(0) == 32 &&
              labelled_and_not.source()->next().size() == 3 && made_up.function()(0).size() == 1);
  const at::Tensor stored = torch::randint(0, 256, {60, 3, 32, 32}, at::kByte),
                   labels = torch::arange(60).remainder(3);
  // [images]
  const auto images = mlo::tensor_images(
      stored, labels);  // or cifar10_images(folder, true), folder_images(folder), …
  const mlo::Split split = mlo::split_by_class(*images, /*held_out=*/0.2, /*seed=*/0);
  mlo::Augmentation augmentation{
      .size = 32, .crop_padding = 4, .flip = true, .mean = {0.5}, .deviation = {0.25}};
  mlo::Data batches = mlo::image_source(
      images, split.train, {.batch_size = 16, .augmentation = augmentation, .workers = 2});
  // [images]
  TORCH_CHECK(batches.source()->next()[0].sizes() == at::IntArrayRef({16, 3, 32, 32}));
}

// [callback]
class PrintPenalty final : public mlo::Callback {
 public:
  void on_step(const mlo::StepReport& report) override {
    if (report.step % 50 != 0) return;
    const at::Tensor& log_penalty = report.engine.parameters("penalty")[0];
    std::printf("step %lld: penalty %.4f\n", static_cast<long long>(report.step),
                log_penalty.exp().item<double>());
  }
  void on_warning(const std::string& text) override {
    std::fprintf(stderr, "warning: %s\n", text.c_str());
  }
};
// [callback]

void training(const std::filesystem::path& folder) {
  Toy toy;
  // [training]
  mlo::Engine engine({.steps = 200,
                      .validate_every = 20,
                      .seed = 7,
                      .early_stopping = {.metric = "penalty.test_error", .patience = 5},
                      .checkpoint = folder / "run.checkpoint",
                      .checkpoint_every = 100});
  engine.add("fit", Fit(toy.net, toy.log_penalty),
             {.optimizer = mlo::adamw({.lr = 0.01}),
              .data = mlo::tensor_source(toy.train.tensors(), {.batch_size = 32}),
              .unroll = 5,
              .best_response = mlo::unrolled(),
              .schedule = mlo::cosine({.steps = 1000, .warmup = 10, .final_factor = 0.1}),
              .warmup_steps = 20,
              .accumulate = 2,
              .clip_norm = 1.0});
  engine.add("penalty", Penalty(toy.log_penalty, toy.net, toy.test),
             {.optimizer = mlo::adam({.lr = 0.02}), .data = toy.held_out});
  engine.add(mlo::progress_bar(stderr));
  engine.add(mlo::json_lines(folder / "log.jsonl", 10));
  engine.add(mlo::best_checkpoint(folder / "best.checkpoint"));
  engine.add(std::make_shared<PrintPenalty>());
  const mlo::RunSummary summary = engine.run();
  std::cout << summary.to_string();
  engine.load(folder / "best.checkpoint");
  // [training]
}

// [stop]
mlo::Engine* running = nullptr;
extern "C" void on_signal(int) {
  if (running)
    running->request_stop();  // async-signal-safe; the engine ends its step, saves and returns
}

mlo::RunSummary run_or_resume(mlo::Engine& engine) {
  const std::filesystem::path& checkpoint = engine.options().checkpoint;
  if (std::filesystem::exists(checkpoint)) engine.load(checkpoint);
  running = &engine;
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  const mlo::RunSummary summary = engine.run();
  running = nullptr;
  return summary;
}
// [stop]

mlo::RunSummary resume(const std::filesystem::path& checkpoint, int64_t steps) {
  torch::manual_seed(1);
  Toy toy;
  mlo::Engine engine({.steps = steps, .checkpoint = checkpoint});
  engine.add("fit", Fit(toy.net, toy.log_penalty),
             {.optimizer = mlo::sgd({.lr = 0.05}), .data = toy.train});
  engine.add("penalty", Penalty(toy.log_penalty, toy.net, toy.test),
             {.optimizer = mlo::adam({.lr = 0.02}), .data = toy.held_out});
  return run_or_resume(engine);
}

void looking_inside() {
  Toy toy;
  mlo::Engine engine({.steps = 20, .profile = true});
  engine.add("fit", Fit(toy.net, toy.log_penalty),
             {.optimizer = mlo::sgd({.lr = 0.05}),
              .data = toy.train,
              .unroll = 50,
              .best_response = mlo::cg()});
  engine.add("penalty", Penalty(toy.log_penalty, toy.net, toy.test),
             {.optimizer = mlo::adam({.lr = 0.02}), .data = toy.held_out});
  engine.run();
  // [inside]
  std::cout << engine.graph().to_string();
  const mlo::Counters& fit = engine.counters("fit");
  const mlo::SolveSummary solve = engine.summary("fit");
  std::printf("%lld forwards, %lld backwards, %lld Hessian and %lld mixed products, %.2f s\n",
              static_cast<long long>(fit.forwards), static_cast<long long>(fit.backwards),
              static_cast<long long>(fit.hessian_products),
              static_cast<long long>(fit.mixed_products), fit.seconds);
  std::printf("last solve: %s, %lld iterations, residual %.1e\n", mlo::to_string(solve.reason),
              static_cast<long long>(solve.iterations), solve.residual);
  // [inside]

  // [check]
  const mlo::CheckReport report = mlo::check_hypergradient(engine, {.resolve_steps = 500});
  std::cout << report.to_string();
  const double error = report.resolved->relative_error;
  // [check]
  TORCH_CHECK(error < 0.2);
}

// [replayed]
struct MaskedFit final : mlo::Problem {
  MaskedFit(torch::nn::Linear net, at::Tensor scores)
      : Problem(mlo::trains(net)), net(net), scores(scores) {}

  mlo::Evaluation loss(const mlo::Batch& batch) override {
    const at::Tensor kept = mlo::replayed([&] { return std::get<1>(scores.topk(4)); });
    const at::Tensor mask = at::zeros_like(scores).index_fill(0, kept, 1.0);
    return (net(batch[0] * mask * scores.sigmoid()) - batch[1]).square().mean();
  }

  torch::nn::Linear net;
  at::Tensor scores;
};
// [replayed]

void choices() {
  Toy toy;
  const at::Tensor scores = torch::randn({8}).requires_grad_();
  struct Held final : mlo::Problem {
    Held(at::Tensor scores, torch::nn::Linear net) : Problem(mlo::trains(scores)), net(net) {}
    mlo::Evaluation loss(const mlo::Batch& batch) override {
      return (net(batch[0]) - batch[1]).square().mean();
    }
    torch::nn::Linear net;
  };
  mlo::Engine engine({.steps = 5});
  engine.add(
      "fit", MaskedFit(toy.net, scores),
      {.optimizer = mlo::sgd({.lr = 0.05}), .data = toy.train, .best_response = mlo::darts()});
  engine.add("mask", Held(scores, toy.net), {.optimizer = mlo::adam(), .data = toy.held_out});
  engine.run();
}

// [analytic]
struct Ridge final : mlo::Problem, mlo::AnalyticDerivatives {
  Ridge(at::Tensor w, at::Tensor log_penalties)
      : Problem(mlo::trains(w)), w(w), log_penalties(log_penalties) {}

  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return (batch[0].mv(w) - batch[1]).square().mean() + log_penalties.exp().dot(w.square());
  }

  mlo::Tensors product(const mlo::Batch& batch, const mlo::Tensors& v,
                       const mlo::Tensors& wrt) override {
    mlo::Tensors result;
    for (const at::Tensor& t : wrt)
      if (t.is_same(w)) {
        result.push_back(batch[0].t().mv(batch[0].mv(v[0])) *
                             (2.0 / static_cast<double>(batch[0].size(0))) +
                         2.0 * log_penalties.exp() * v[0]);
      } else {
        result.push_back(2.0 * log_penalties.exp() * w * v[0]);
      }
    return result;
  }

  at::Tensor w, log_penalties;
};
// [analytic]

void closed_form() {
  const at::Tensor x = torch::randn({40, 8}, at::kDouble), y = x.sum(1);
  const at::Tensor w = torch::zeros({8}, at::kDouble).requires_grad_(),
                   log_penalties = torch::zeros({8}, at::kDouble).requires_grad_();
  struct Held final : mlo::Problem {
    Held(at::Tensor log_penalties, at::Tensor w) : Problem(mlo::trains(log_penalties)), w(w) {}
    mlo::Evaluation loss(const mlo::Batch& batch) override {
      return (batch[0].mv(w) - batch[1]).square().mean();
    }
    at::Tensor w;
  };
  mlo::Engine engine({.steps = 10});
  engine.add(
      "fit", Ridge(w, log_penalties),
      {.optimizer = mlo::sgd({.lr = 0.05}),
       .data = mlo::Batch{x, y},
       .best_response = mlo::implicit(mlo::analytic_oracle(), mlo::conjugate_gradient_solver())});
  engine.add("penalties", Held(log_penalties, w),
             {.optimizer = mlo::adam(), .data = mlo::Batch{x, y}});
  engine.run();
  TORCH_CHECK(mlo::check_hypergradient(engine).analytic.at(0).product.relative_error < 1e-10);
}

void methods() {
  Toy toy;
  mlo::LevelOptions fit, head;
  // [methods]
  fit.best_response = mlo::one_step();  // identity × exact, the default
  head.best_response =
      mlo::implicit(mlo::finite_difference_oracle(),  // any oracle with any solver
                    mlo::conjugate_gradient_solver({.max_iterations = 5, .damping = 1e-3}));
  // [methods]
  // [constant]
  mlo::LevelOptions options{.optimizer = mlo::sgd(), .constant = {"teacher"}};
  // [constant]
  TORCH_CHECK(options.constant.size() == 1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tour FOLDER\n");
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  torch::manual_seed(1);
  at::set_num_threads(1);
  data();
  training(folder);
  TORCH_CHECK(resume(folder / "resume.checkpoint", 10).steps == 10);
  TORCH_CHECK(resume(folder / "resume.checkpoint", 20).steps == 20);
  looking_inside();
  choices();
  closed_form();
  methods();
}
