#include "mlomae/evaluation/finetune.h"

#include "mlomae/message.h"
#include "mlomae/models/modes.h"

#include <ATen/ATen.h>
#include <mlo/data/image_source.h>
#include <mlo/engine.h>
#include <torch/optim/adamw.h>
#include <torch/utils.h>

#include <cmath>
#include <map>
#include <unordered_map>

namespace mlomae {
namespace {

/// min over E and C of cross_entropy(C(E(x)), y).
class Train final : public mlo::Problem {
 public:
  Train(MaskedAutoencoder mae, Head head, double smoothing)
      : Problem(mlo::trains(mae, head)), mae_(mae), head_(head), smoothing_(smoothing) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    const at::Tensor logits = head_->forward(mae_->features(batch[0]));
    return {at::cross_entropy_loss(logits, batch[1], {}, at::Reduction::Mean, -100, smoothing_),
            {{"accuracy", logits.detach().argmax(1).eq(batch[1]).to(at::kFloat).mean()}}};
  }

 private:
  MaskedAutoencoder mae_;
  Head head_;
  double smoothing_;
};

// Which layer a parameter of the encoder is in; −1: of the decoder.
int64_t layer_of(const std::string& name, int64_t depth) {
  if (name.starts_with("decoder") || name == "mask_token") return -1;
  if (name.starts_with("blocks.")) return std::stoll(name.substr(7)) + 1;
  return name.starts_with("norm.") ? depth + 1 : 0;
}

double tested(MaskedAutoencoder mae, Head head, const Dataset& dataset) {
  const at::NoGradGuard no_grad;
  const KeepModes of_encoder(mae.ptr()), of_head(head.ptr());
  mae->eval();
  head->eval();
  std::vector<int64_t> rows(static_cast<std::size_t>(dataset.test->size()));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
  const at::Device device = mae->parameters().front().device();
  int64_t right = 0;
  const auto count = static_cast<int64_t>(rows.size());
  for (int64_t begin = 0; begin < count; begin += 500) {
    const mlo::Batch part =
        mlo::image_batch(*dataset.test, rows, begin, std::min(begin + 500, count), dataset.plain());
    const at::Tensor logits = head->forward(mae->features(part[0].to(device)));
    if (!logits.isfinite().all().item<bool>())
      refuse<mlo::NonFiniteError>(
          "what the fine-tuned model makes of the test images is not finite: it has diverged; "
          "lower evaluation.finetune_lr");
    right += logits.argmax(1).cpu().eq(part[1]).sum().item<int64_t>();
  }
  return static_cast<double>(right) / static_cast<double>(count);
}

}  // namespace

mlo::OptimizerFactory layerwise_adamw(MaskedAutoencoder mae, Head head,
                                      const FinetuneOptions& options) {
  const int64_t depth = mae->options().depth;
  std::unordered_map<const void*, int64_t> layers;
  for (const auto& item : mae->named_parameters())
    layers[item.value().unsafeGetTensorImpl()] = layer_of(item.key(), depth);
  for (const auto& item : head->named_parameters())
    layers[item.value().unsafeGetTensorImpl()] = depth + 1;
  return [=](const mlo::Tensors& parameters) -> std::shared_ptr<torch::optim::Optimizer> {
    std::map<std::pair<int64_t, bool>, std::vector<at::Tensor>>
        groups;  // by layer and whether it is decayed
    for (const at::Tensor& p : parameters)
      groups[{layers.at(p.unsafeGetTensorImpl()), p.dim() >= 2}].push_back(p);
    std::vector<torch::optim::OptimizerParamGroup> all;
    for (auto& [key, tensors] : groups) {
      const double lr =
          options.lr * std::pow(options.layer_decay, static_cast<double>(depth + 1 - key.first));
      all.emplace_back(std::move(tensors), std::make_unique<torch::optim::AdamWOptions>(
                                               torch::optim::AdamWOptions(lr).weight_decay(
                                                   key.second ? options.weight_decay : 0.0)));
    }
    return std::make_shared<torch::optim::AdamW>(all, torch::optim::AdamWOptions(options.lr));
  };
}

Finetuned finetune(MaskedAutoencoder mae, const Dataset& dataset,
                   const mlo::Augmentation& augmentation, const FinetuneOptions& options,
                   std::shared_ptr<mlo::Callback> callback) {
  require(dataset.test != nullptr,
          "fine-tuning is judged on test images, and this data set has none; give a folder test/, "
          "or data.test_fraction");
  torch::manual_seed(options.seed);
  Head head(HeadOptions{.dim = mae->options().dim,
                        .classes = static_cast<int64_t>(dataset.train->classes().size()),
                        .dropout = options.dropout});
  head->to(mae->parameters().front().device());
  const KeepModes modes(mae.ptr());
  mae->train();
  // The decoder has no part in it.
  for (const auto& item : mae->named_parameters())
    if (layer_of(item.key(), mae->options().depth) < 0) item.value().set_requires_grad(false);

  const int64_t an_epoch = std::max<int64_t>(1, dataset.train->size() / options.batch);
  Finetuned result;
  result.steps = std::max<int64_t>(1, std::llround(options.epochs * static_cast<double>(an_epoch)));
  mlo::Engine engine({.steps = result.steps, .seed = options.seed});
  mlo::LevelOptions level;
  level.optimizer = layerwise_adamw(mae, head, options);
  level.data = mlo::image_source(dataset.train, {},
                                 {.batch_size = std::min(options.batch, dataset.train->size()),
                                  .augmentation = augmentation,
                                  .device = mae->parameters().front().device()});
  level.schedule =
      mlo::cosine({.steps = result.steps,
                   .warmup = std::llround(options.warmup * static_cast<double>(result.steps))});
  engine.add("finetune", Train(mae, head, options.label_smoothing), std::move(level));
  if (callback) engine.add(std::move(callback));
  result.seconds = engine.run().seconds;
  result.accuracy = tested(mae, head, dataset);
  result.head = head;
  return result;
}

}  // namespace mlomae
