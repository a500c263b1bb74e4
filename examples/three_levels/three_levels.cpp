// Which auxiliary tasks should an encoder be pretrained on? Three levels, each trained on the
// optimum of the one below:
//
//   "pretrain"  trains an encoder on six auxiliary tasks; task j has the weight softmax(scores)_j
//   "head"      trains a classifier on the encoder's features, from 60 labelled rows
//   "tasks"     trains the scores on the classifier's loss on held-out rows
//
// The encoder has room for two of the six directions in the data that the tasks are about. The
// classifier needs those of the tasks 0 and 1; nobody tells. Prints the weights found, the accuracy
// against equal weights, and the library's check of its hypergradient.
//
// usage: three_levels [--short] [--json]
#include <mlo/mlo.h>
#include <torch/torch.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr int64_t kInputs = 12, kTasks = 6, kFeatures = 2;

// [problems]
struct Modules {
  torch::nn::Linear encoder{kInputs, kFeatures}, decoder{kFeatures, kTasks}, head{kFeatures, 1};
  at::Tensor scores = torch::zeros({kTasks}, at::kDouble).requires_grad_();

  at::Tensor features(const at::Tensor& x) { return encoder(x).tanh(); }
  at::Tensor logits(const at::Tensor& x) { return head(features(x)).squeeze(1); }
};

struct Pretrain final : mlo::Problem {
  explicit Pretrain(Modules m) : Problem(mlo::trains(m.encoder, m.decoder)), m(m) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    const at::Tensor errors = (m.decoder(m.features(batch[0])) - batch[1]).square().mean(0);
    return m.scores.softmax(0).dot(errors);
  }
  Modules m;
};

struct Head final : mlo::Problem {
  explicit Head(Modules m) : Problem(mlo::trains(m.head)), m(m) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    const at::Tensor fit = at::binary_cross_entropy_with_logits(m.logits(batch[0]), batch[1]);
    return fit + 1e-3 * m.head->weight.square().sum();
  }
  Modules m;
};

struct Tasks final : mlo::Problem {
  explicit Tasks(Modules m) : Problem(mlo::trains(m.scores)), m(m) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return at::binary_cross_entropy_with_logits(m.logits(batch[0]), batch[1]);
  }
  Modules m;
};
// [problems]

struct Data {
  explicit Data(int64_t rows) {
    x = torch::randn({rows, kInputs}, at::kDouble);
    const at::Tensor hidden = x.narrow(1, 0, kTasks);  // the direction of task j is input j
    answers = (1.5 * hidden).tanh() + 0.1 * torch::randn({rows, kTasks}, at::kDouble);
    label = (hidden.select(1, 0) + hidden.select(1, 1) + 0.3 * torch::randn({rows}, at::kDouble))
                .gt(0)
                .to(at::kDouble);
  }
  at::Tensor x, answers, label;
};

struct Result {
  at::Tensor weights;
  double accuracy = 0.0;
  mlo::CheckReport check;
  std::string graph;
};

// The same modules, data and steps each time; without `learn` the weights stay equal.
Result train(int64_t steps, bool learn) {
  torch::manual_seed(3);
  const Data unlabelled(600), labelled(60), held_out(300), test(4000);
  Modules m;
  for (const auto& layer : {m.encoder, m.decoder, m.head}) layer.ptr()->to(at::kDouble);

  // [engine]
  mlo::Engine engine({.steps = steps});
  engine.add("pretrain", Pretrain(m),
             {.optimizer = mlo::sgd({.lr = 0.5}),
              .data = mlo::Batch{unlabelled.x, unlabelled.answers},
              .best_response = mlo::one_step()});
  engine.add("head", Head(m),
             {.optimizer = mlo::sgd({.lr = 0.5}),
              .data = mlo::Batch{labelled.x, labelled.label},
              .best_response = mlo::one_step()});
  engine.add("tasks", Tasks(m),
             {.optimizer = mlo::adam({.lr = learn ? 0.02 : 0.0}),
              .data = mlo::Batch{held_out.x, held_out.label}});
  engine.run();
  // [engine]

  const at::NoGradGuard no_grad;
  Result result;
  result.graph = engine.graph().to_string();
  result.weights = m.scores.softmax(0);
  result.accuracy =
      m.logits(test.x).gt(0).eq(test.label.gt(0)).to(at::kDouble).mean().item<double>();
  if (learn) result.check = mlo::check_hypergradient(engine);
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  bool is_short = false, json = false;
  for (const std::string_view argument : std::vector<std::string_view>(argv + 1, argv + argc)) {
    if (argument == "--short") {
      is_short = true;
    } else if (argument == "--json") {
      json = true;
    } else {
      std::cerr << "usage: three_levels [--short] [--json]\n";
      return 2;
    }
  }

  at::set_num_threads(1);  // the tensors are small
  const int64_t steps = is_short ? 600 : 1200;
  const Result equal = train(steps, false), learned = train(steps, true);
  const double* weights = learned.weights.const_data_ptr<double>();
  const double wanted = weights[0] + weights[1];
  const bool ok = wanted > 0.7 && learned.accuracy > equal.accuracy &&
                  learned.check.steps_taken.relative_error < 1e-6;

  if (json) {
    std::printf("{\"steps\": %lld, \"weights\": [", static_cast<long long>(steps));
    for (int64_t j = 0; j < kTasks; ++j) std::printf("%s%.6f", j ? ", " : "", weights[j]);
    std::printf(
        "], \"accuracy_equal\": %.4f, \"accuracy_learned\": %.4f, \"check_error\": %.3g, \"ok\": "
        "%s}\n",
        equal.accuracy, learned.accuracy, learned.check.steps_taken.relative_error,
        ok ? "true" : "false");
    return ok ? 0 : 1;
  }
  std::printf(
      "%s\nweight of each task after %lld steps (equal: %.3f; the classifier needs 0 and 1):\n",
      learned.graph.c_str(), static_cast<long long>(steps), 1.0 / kTasks);
  for (int64_t j = 0; j < kTasks; ++j)
    std::printf("  task %lld  %.3f  %s\n", static_cast<long long>(j), weights[j],
                std::string(static_cast<std::size_t>(50 * weights[j] + 0.5), '#').c_str());
  std::printf("\ntest accuracy: equal weights %.1f %%, learned weights %.1f %%\n\n%s%s\n",
              100 * equal.accuracy, 100 * learned.accuracy, learned.check.to_string().c_str(),
              ok ? "ok" : "not ok");
  return ok ? 0 : 1;
}
