#pragma once

#include "engine/support.h"

#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>

/// A three-level run with everything that a resume could forget: dropout, batch norm, shuffled and
/// random data, momentum, AdamW, a warm-started solver, schedules, micro-batches, warm-up steps and
/// early stopping.
class ResumeProblem {
 public:
  ResumeProblem() {
    at::manual_seed(21);
    first_ = torch::nn::Linear(4, 5);
    norm_ = torch::nn::BatchNorm1d(5);
    drop_ = torch::nn::Dropout(0.2);
    head_ = at::randn({5}).div_(3.0).requires_grad_();
    weight_ = at::zeros({4}).requires_grad_();
    data_ = at::randn({26, 4});
  }

  void add_to(Engine& engine) {
    engine.add("net",
               Lambda(mlo::trains(first_, norm_).uses(drop_),
                      [this](const Batch& batch) {
                        return (features(batch[0] * weight_.sigmoid()).sum(1) - batch[0].sum(1))
                            .square()
                            .mean();
                      }),
               {.optimizer = mlo::sgd({.lr = 0.05, .momentum = 0.9, .nesterov = true}),
                .data = mlo::tensor_source({data_}, {.batch_size = 4, .drop_last = false}),
                .unroll = 2,
                .best_response = mlo::cg({.max_iterations = 2, .damping = 100.0}),
                .schedule = mlo::cosine({.steps = 40, .warmup = 3}),
                .warmup_steps = 3,
                .accumulate = 2});
    engine.add(
        "head",
        Lambda(head_,
               [this](const Batch& batch) {
                 return (at::matmul(features(batch[0]), head_) - batch[0].sum(1)).square().mean() +
                        0.1 * head_.square().sum();
               }),
        {.optimizer = mlo::adamw({.lr = 0.02}),
         .data = random_rows(),
         .best_response = mlo::one_step(),
         .clip_norm = 0.5});
    Lambda weight(weight_, [this](const Batch& batch) {
      return at::matmul(features(batch[0]), head_).square().mean() + 0.01 * weight_.square().sum();
    });
    weight.judge = [] {
      return std::map<std::string, double>{{"error", at::rand({}).item<double>()}};
    };
    engine.add("weight", std::move(weight),
               {.optimizer = mlo::adam({.lr = 0.02}),
                .data = random_rows(),
                .schedule = mlo::step_decay({.every = 4, .factor = 0.5})});
  }

  /// Early stopping sees random numbers, so that its state matters; with this seed it ends the run
  /// after `kSteps` steps.
  static EngineOptions options(const std::filesystem::path& checkpoint = {}) {
    return {.steps = 30,
            .validate_every = 1,
            .seed = 5,
            .early_stopping = {.metric = "weight.error", .patience = 6},
            .checkpoint = checkpoint};
  }
  static constexpr int64_t kSteps = 14;

 private:
  at::Tensor features(const at::Tensor& x) { return drop_(norm_(first_(x)).tanh()); }
  mlo::Data random_rows() {
    return [this](int64_t) { return Batch{data_.index_select(0, at::randint(26, {60}))}; };
  }

  torch::nn::Linear first_{nullptr};
  torch::nn::BatchNorm1d norm_{nullptr};
  torch::nn::Dropout drop_{nullptr};
  at::Tensor head_, weight_, data_;
};
