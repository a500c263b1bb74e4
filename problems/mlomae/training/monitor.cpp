#include "mlomae/training/monitor.h"

#include "mlomae/config/methods.h"
#include "mlomae/data/maps.h"
#include "mlomae/evaluation/features.h"
#include "mlomae/evaluation/knn.h"
#include "mlomae/models/modes.h"
#include "mlomae/run/pictures.h"

#include <mlo/data/image_file.h>
#include <mlo/data/image_source.h>
#include <mlo/io/event_file.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <map>

namespace mlomae {
namespace {

// Up to `count` of them, evenly spread.
std::vector<int64_t> some(const std::vector<int64_t>& rows, std::size_t count) {
  if (rows.size() <= count) return rows;
  std::vector<int64_t> result;
  for (std::size_t i = 0; i < count; ++i) result.push_back(rows[i * rows.size() / count]);
  return result;
}

// Puts LibTorch's generators and the models' modes back.
class AsideGuard {
 public:
  explicit AsideGuard(const Models& models)
      : modes_(models.mae.ptr()), cpu_(at::detail::getDefaultCPUGenerator().get_state()) {
    const at::Device device = models.mae->parameters().front().device();
    if (device.is_cuda()) {
      cuda_generator_ = at::globalContext().defaultGenerator(device);
      cuda_ = cuda_generator_.get_state();
    }
    models.mae.ptr()->eval();
  }
  ~AsideGuard() {
    at::Generator cpu = at::detail::getDefaultCPUGenerator();
    cpu.set_state(cpu_);
    if (cuda_.defined()) cuda_generator_.set_state(cuda_);
  }
  AsideGuard(const AsideGuard&) = delete;
  AsideGuard& operator=(const AsideGuard&) = delete;

 private:
  const KeepModes modes_;
  const at::Tensor cpu_;
  at::Generator cuda_generator_;
  at::Tensor cuda_;
};

// With their maps, if there are any, as one more channel.
at::Tensor images_with_maps(const Dataset& dataset, const std::vector<int64_t>& rows, int64_t begin,
                            int64_t end) {
  if (!dataset.maps) return mlo::image_batch(*dataset.train, rows, begin, end, dataset.plain())[0];
  return mlo::image_batch(*joined(dataset.train, dataset.maps), rows, begin, end,
                          with_map(dataset.plain(), dataset.train->channels()))[0];
}

// What patches count, as if all were masked: [B, N].
at::Tensor counts_of(const at::Tensor& logits, const MaskingOptions& options) {
  const at::Tensor weights = weights_of(logits, at::ones_like(logits), options);
  return weights.defined() ? weights : at::ones_like(logits);
}

at::Tensor shown_scores(const at::Tensor& logits, const MaskingOptions& options) {
  if (options.weighs == Weighs::probability || options.weighs == Weighs::straight_through ||
      options.weighs == Weighs::alike)
    return logits.sigmoid();
  const at::Tensor counts = counts_of(logits, options);
  return counts / counts.amax(1, true).clamp_min(1e-30);
}

// "found" and "weight_found".
std::map<std::string, double> found(const Dataset& dataset, const Models& models,
                                    const std::vector<int64_t>& rows,
                                    const MaskingOptions& options) {
  const AsideGuard aside(models);
  const at::NoGradGuard no_grad;
  const at::Device device = models.mae->parameters().front().device();
  double heaviest = 0.0, weight = 0.0, images = 0.0;
  for (int64_t begin = 0, count = static_cast<int64_t>(rows.size()); begin < count; begin += 128) {
    const at::Tensor part =
        images_with_maps(dataset, rows, begin, std::min(begin + 128, count)).to(device);
    const MaskContext context = mask_context(models.mae, part, options.input);
    const at::Tensor logits = choose_mask(context, models.masker, options).logits;
    const at::Tensor covered = context.map.ge(0.5).to(at::kFloat), k = covered.sum(1, true),
                     counts = counts_of(logits, options);
    // The place of each patch among its image's, the heaviest first.
    const at::Tensor place = logits.argsort(/*stable=*/true, 1, /*descending=*/true)
                                 .argsort(int64_t{1}),
                     has = k.gt(0).to(at::kFloat);
    heaviest += (covered * place.lt(k) / k.clamp_min(1.0)).sum().item<double>();
    weight += ((covered * counts).sum(1, true) / counts.sum(1, true) * has).sum().item<double>();
    images += has.sum().item<double>();
  }
  if (images == 0.0) return {};
  return {{"found", heaviest / images}, {"weight_found", weight / images}};
}

at::Tensor displayable(const at::Tensor& images, const Dataset& dataset) {
  const int64_t channels = static_cast<int64_t>(dataset.mean.size());
  const at::Tensor mean = torch::tensor(dataset.mean, at::kFloat).view({1, channels, 1, 1}),
                   deviation =
                       torch::tensor(dataset.deviation, at::kFloat).view({1, channels, 1, 1});
  return ((images.cpu() * deviation + mean) * 255.0).round().clamp(0, 255).to(at::kByte);
}

class Snapshots final : public mlo::Callback {
 public:
  Snapshots(const Settings& settings, const Dataset& dataset, const Models& models,
            const RunDirectory& directory)
      : settings_(settings),
        dataset_(dataset),
        models_(models),
        directory_(directory),
        length_(run_length(settings, dataset)),
        images_(snapshot_images(dataset, settings.run.snapshot_images)) {
    const int64_t every = settings.run.snapshot_every > 0
                              ? settings.run.snapshot_every
                              : std::max<int64_t>(1, length_.reconstruction_steps / 10);
    every_ = std::max<int64_t>(1, every / length_.steps_each);
  }

  void on_start(const mlo::Engine& engine) override {
    std::filesystem::create_directories(directory_.masks());
    writer_ =
        std::make_unique<mlo::EventWriter>(directory_.tensorboard(), engine.steps_taken() + 1);
    if (engine.steps_taken() == 0) write(0);
  }
  void on_step(const mlo::StepReport& report) override {
    if (report.step % every_ == 0 || report.step == report.steps) write(report.step);
  }

 private:
  void write(int64_t step) {
    const Snapshot snapshot =
        take_snapshot(settings_, dataset_, models_, images_, step * length_.steps_each);
    write_snapshot(directory_.snapshot(snapshot.step), snapshot);
    std::vector<at::Tensor> top, bottom;
    for (int64_t i = 0; i < snapshot.images.size(0); ++i) {
      top.push_back(masked_picture(snapshot.images[i], snapshot.masked[i]));
      bottom.push_back(picture(snapshot.reconstruction[i]));
    }
    const at::Tensor both = enlarged(torch::cat({side_by_side(top), side_by_side(bottom)}, 1), 2);
    writer_->image(step, "masks and reconstructions", mlo::encode_png(both), both.size(2),
                   both.size(1));
  }

  const Settings settings_;
  const Dataset dataset_;
  const Models models_;
  const RunDirectory directory_;
  const Length length_;
  const at::Tensor images_;
  int64_t every_ = 1;
  std::unique_ptr<mlo::EventWriter> writer_;
};

}  // namespace

Monitor monitor_of(const Settings& settings, const Dataset& dataset, const Models& models) {
  const std::vector<int64_t> known = some(dataset.head, 1000), asked = some(dataset.held_out, 500);
  if (asked.empty()) return {};
  const KnnOptions options{.neighbours = settings.evaluation.neighbours,
                           .temperature = settings.evaluation.temperature};
  const int64_t batch = settings.evaluation.batch,
                classes = static_cast<int64_t>(dataset.train->classes().size());
  return [=, plain = dataset.plain(), masking = masking_options(settings)] {
    const Features a = features(models.mae, *dataset.train, known, plain, batch),
                   b = features(models.mae, *dataset.train, asked, plain, batch);
    std::map<std::string, double> numbers = {
        {"knn", knn_accuracy(a.class_token, a.labels, b.class_token, b.labels, classes, options)}};
    if (dataset.maps && models.masker) numbers.merge(found(dataset, models, asked, masking));
    return numbers;
  };
}

at::Tensor snapshot_images(const Dataset& dataset, int64_t count) {
  const std::vector<int64_t>& from = dataset.held_out.empty() ? dataset.head : dataset.held_out;
  std::map<int64_t, std::vector<int64_t>> by_class;
  for (const int64_t row : from) by_class[dataset.train->label(row)].push_back(row);
  std::vector<int64_t> rows;
  for (std::size_t turn = 0; static_cast<int64_t>(rows.size()) < count && turn < from.size();
       ++turn)
    for (const auto& [label, of_class] : by_class)
      if (turn < of_class.size() && static_cast<int64_t>(rows.size()) < count)
        rows.push_back(of_class[turn]);
  return images_with_maps(dataset, rows, 0, static_cast<int64_t>(rows.size()));
}

Snapshot take_snapshot(const Settings& settings, const Dataset& dataset, const Models& models,
                       const at::Tensor& images, int64_t step) {
  const AsideGuard aside(models);
  const at::NoGradGuard no_grad;
  torch::manual_seed(0);  // the same draws at each snapshot: what differs is the masker's doing
  const at::Device device = models.mae->parameters().front().device();
  const MaskingOptions options = masking_options(settings);
  MaskedAutoencoder mae = models.mae;

  const at::Tensor x = without_map(mae, images.to(device));
  const MaskContext context = mask_context(mae, images.to(device), options.input);
  const Masking masking = choose_mask(context, models.masker, options);
  const at::Tensor predictions =
      mae->decode(mae->encode(context.embedded, masking.mask), masking.mask);
  const at::Tensor hidden = masking.mask.masked.unsqueeze(-1);
  const at::Tensor shown = mae->unpatchify(mae->patchify(mae->pixels(predictions, x)) * hidden +
                                           mae->patchify(x) * (1.0 - hidden));

  Snapshot s;
  s.step = step;
  s.patch = mae->options().patch;
  s.images = displayable(x, dataset);
  s.masked = masking.mask.masked.to(at::kByte).cpu();
  s.reconstruction = displayable(shown, dataset);
  if (masking.logits.defined() && method_of(settings).masks != Masks::uniform)
    s.probability = shown_scores(masking.logits, options).to(at::kFloat).cpu();
  if (context.map.defined()) s.map = context.map.to(at::kFloat).cpu();

  // Rates need more images than the eye does.
  const std::vector<int64_t> rows = some(dataset.head, 512);
  at::Tensor rate = torch::zeros({mae->options().patches()});
  for (int64_t begin = 0, count = static_cast<int64_t>(rows.size()); begin < count; begin += 128) {
    const int64_t end = std::min(begin + 128, count);
    const at::Tensor part = images_with_maps(dataset, rows, begin, end).to(device);
    rate += choose_mask(mask_context(mae, part, options.input), models.masker, options)
                .mask.masked.sum(0)
                .to(at::kFloat)
                .cpu() /
            static_cast<double>(count);
  }
  s.position_rate = rate;
  return s;
}

std::unique_ptr<mlo::Callback> snapshots(const Settings& settings, const Dataset& dataset,
                                         const Models& models, const RunDirectory& directory) {
  return std::make_unique<Snapshots>(settings, dataset, models, directory);
}

}  // namespace mlomae
