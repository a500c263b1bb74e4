#include "mlomae/evaluation/linear_probe.h"

#include "mlomae/message.h"

#include <ATen/ATen.h>
#include <torch/optim/lbfgs.h>
#include <torch/types.h>

namespace mlomae {
namespace {

at::Tensor logits(const at::Tensor& features, const at::Tensor& weights) {
  const int64_t dim = features.size(1);
  return at::addmm(weights[dim], features, weights.narrow(0, 0, dim));
}

double accuracy(const at::Tensor& features, const at::Tensor& labels, const at::Tensor& weights) {
  return logits(features, weights).argmax(1).eq(labels).to(at::kDouble).mean().item<double>();
}

}  // namespace

at::Tensor LinearProbe::logits(const at::Tensor& features) const {
  return mlomae::logits((features - mean) / deviation, weights);
}

at::Tensor logistic_regression(const at::Tensor& features, const at::Tensor& labels,
                               int64_t classes, double strength, int64_t iterations,
                               const at::Tensor& start) {
  const int64_t dim = features.size(1);
  at::Tensor weights = (start.defined() ? start.detach().clone()
                                        : torch::zeros({dim + 1, classes}, features.options()))
                           .requires_grad_();
  torch::optim::LBFGS optimizer({weights}, torch::optim::LBFGSOptions(1.0)
                                               .max_iter(iterations)
                                               .history_size(10)
                                               .tolerance_grad(1e-6)
                                               .tolerance_change(1e-10)
                                               .line_search_fn("strong_wolfe"));
  const at::AutoGradMode with_gradients(true);
  optimizer.step([&] {
    optimizer.zero_grad();
    at::Tensor loss = at::cross_entropy_loss(logits(features, weights), labels) +
                      0.5 * strength * weights.narrow(0, 0, dim).square().sum();
    loss.backward();
    return loss;
  });
  return weights.detach();
}

LinearProbe linear_probe(const at::Tensor& features, const at::Tensor& labels,
                         const at::Tensor& test_features, const at::Tensor& test_labels,
                         int64_t classes, const LinearProbeOptions& options) {
  const at::Tensor mean = features.mean(0), deviation = features.std(0).clamp_min(1e-6);
  const at::Tensor train = (features - mean) / deviation, test = (test_features - mean) / deviation;

  auto generator = at::detail::createCPUGenerator(options.seed);
  const int64_t count = train.size(0),
                held_out = std::max<int64_t>(
                    1, static_cast<int64_t>(options.held_out * static_cast<double>(count)));
  require<mlo::Error>(held_out < count,
                      "linear probe: {} training images are too few; give at least 2", count);
  const at::Tensor order = torch::randperm(count, generator, at::kLong);
  const at::Tensor out = order.narrow(0, 0, held_out),
                   in = order.narrow(0, held_out, count - held_out);
  const at::Tensor fit = train.index_select(0, in), fit_labels = labels.index_select(0, in);
  const at::Tensor judge = train.index_select(0, out), judge_labels = labels.index_select(0, out);

  LinearProbe result;
  double best = -1.0;
  at::Tensor weights, best_weights;
  // From strong to weak, each from where the last one ended. The stronger of two that are as good
  // wins.
  std::vector<double> strengths = options.strengths;
  std::sort(strengths.rbegin(), strengths.rend());
  for (const double strength : strengths) {
    weights = logistic_regression(fit, fit_labels, classes, strength, options.iterations, weights);
    if (const double a = accuracy(judge, judge_labels, weights); a > best)
      best = a, result.strength = strength, best_weights = weights;
  }
  weights = logistic_regression(train, labels, classes, result.strength, options.iterations,
                                best_weights);
  result.weights = weights, result.mean = mean, result.deviation = deviation;
  if (!weights.isfinite().all().item<bool>() ||
      !logits(test, weights).isfinite().all().item<bool>())
    refuse<mlo::NonFiniteError>(
        "linear probe: its weights, or what it makes of the test images, are not finite; look at "
        "the encoder's features");
  result.accuracy = accuracy(test, test_labels, weights);
  result.training_loss = at::cross_entropy_loss(logits(train, weights), labels).item<double>();
  return result;
}

}  // namespace mlomae
