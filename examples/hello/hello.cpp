// Which ridge penalty is best on held-out data? Level "fit" trains weights w under a penalty λ =
// exp(log_penalty); level "penalty" trains λ on the held-out error of the fitted w. Both have
// closed forms here, printed beside the result.
// [readme]
#include <mlo/mlo.h>
#include <torch/torch.h>

#include <iostream>

struct Fit final : mlo::Problem {
  Fit(at::Tensor w, at::Tensor log_penalty)
      : Problem(mlo::trains(w)), w(w), log_penalty(log_penalty) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return (batch[0].matmul(w) - batch[1]).square().sum() + log_penalty.exp() * w.square().sum();
  }
  at::Tensor w, log_penalty;
};

struct Penalty final : mlo::Problem {
  Penalty(at::Tensor log_penalty, at::Tensor w) : Problem(mlo::trains(log_penalty)), w(w) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return (batch[0].matmul(w) - batch[1]).square().mean();
  }
  at::Tensor w;
};

int main() {
  torch::manual_seed(1);
  const at::Tensor truth = torch::randn({20}, at::kDouble),
                   x = std::get<0>(at::linalg_qr(torch::randn({40, 20}, at::kDouble)));
  const at::Tensor y = x.mv(truth) + 0.8 * torch::randn({40}, at::kDouble),
                   held_x = torch::randn({500, 20}, at::kDouble),
                   held_y = held_x.mv(truth) + 0.8 * torch::randn({500}, at::kDouble);
  at::Tensor w = torch::zeros({20}, at::kDouble).requires_grad_(),
             log_penalty = torch::zeros({}, at::kDouble).requires_grad_();

  mlo::Engine engine({.steps = 200});
  engine.add("fit", Fit(w, log_penalty),
             {.optimizer = mlo::sgd({.lr = 0.2}),
              .data = mlo::Batch{x, y},
              .unroll = 10,
              .best_response = mlo::cg()});
  engine.add("penalty", Penalty(log_penalty, w),
             {.optimizer = mlo::adam({.lr = 0.05}), .data = mlo::Batch{held_x, held_y}});
  engine.run();

  // x has orthonormal columns, so w = xᵀy / (1 + λ), and the best 1 / (1 + λ) is a regression of
  // held_y on held_x xᵀy.
  const at::Tensor prediction = held_x.mv(x.t().mv(y));
  const double closed_form =
      (prediction.dot(prediction) / prediction.dot(held_y)).item<double>() - 1.0;
  std::cout << "penalty learned " << log_penalty.exp().item<double>() << ", closed form "
            << closed_form << "\n"
            << mlo::check_hypergradient(engine, {.resolve_steps = 200}).to_string();
}
// [readme]
