// How much of MLO-MAE's hypergradient is signal: figures of docs/mlomae.md.
#include "case.h"

#include "mlomae/config/json.h"
#include "mlomae/config/presets.h"
#include "mlomae/data/maps.h"
#include "mlomae/levels/masking.h"
#include "mlomae/training/pretraining.h"

#include <ATen/ATen.h>
#include <mlo/data/image_source.h>
#include <torch/types.h>

#include <cmath>
#include <cstdio>

namespace bench {
namespace {

using namespace mlomae;

constexpr std::size_t kBatches = 16;

// By the masker's parameters, the derivative of the mean logit of patches in the maps less that of
// the others, over 512 held-out images.
mlo::Tensors towards_the_maps(const Settings& settings, const Dataset& data, Models& models) {
  std::vector<int64_t> rows(
      data.held_out.begin(),
      data.held_out.begin() + std::min<std::ptrdiff_t>(512, std::ssize(data.held_out)));
  const at::Tensor images =
      mlo::image_batch(*joined(data.train, data.maps), rows, 0, std::ssize(rows),
                       with_map(data.plain(), data.train->channels()))[0];
  const MaskContext context = [&] {
    const at::NoGradGuard no_grad;
    return mask_context(models.mae, images, masking_options(settings).input);
  }();
  const at::Tensor read = context.pixels.defined() ? context.pixels : context.embedded;
  const at::Tensor logits = models.masker->forward(read).select(2, 0);
  const at::Tensor inside = context.map, outside = 1.0 - context.map;
  const at::Tensor gap = ((logits * inside).sum(1) / inside.sum(1).clamp_min(1e-6) -
                          (logits * outside).sum(1) / outside.sum(1).clamp_min(1e-6))
                             .mean();
  return torch::autograd::grad({gap}, models.masker->parameters(), {}, false, false, true);
}

}  // namespace

void print_signal(const std::string& data, const std::vector<std::string>& assignments,
                  int64_t steps) {
  Settings settings = preset("micro");
  settings.run.method = "mlo-mae";
  settings.data.path = data;
  for (const std::string& assignment : assignments)
    apply_assignment(settings, assignment, "--set ");
  settings.run.reconstruction_steps = std::max<int64_t>(settings.run.reconstruction_steps,
                                                        (steps + 100) * settings.pretrain.unroll);
  settings.validate();
  const Dataset dataset = open_dataset(settings);
  Models models = make_models(settings, dataset);
  const auto engine = make_engine(settings, dataset, models, {}, {});
  mlo::Tensors earlier;
  for (const double part : {0.1, 0.3, 1.0}) {
    while (engine->steps_taken() < static_cast<int64_t>(part * static_cast<double>(steps)))
      engine->step();
    std::vector<mlo::Tensors> all;
    for (std::size_t i = 0; i < kBatches; ++i) all.push_back(engine->hypergradient("masker"));
    double pairs = 0.0;
    mlo::Tensors sum = all.front();
    for (std::size_t i = 1; i < kBatches; ++i) {
      for (std::size_t j = 0; j < i; ++j) pairs += cosine(all[i], all[j]);
      for (std::size_t k = 0; k < sum.size(); ++k)
        if (sum[k].defined()) sum[k] = sum[k] + all[i][k];
    }
    std::printf(
        "after %lld steps of the masker: mean cosine of pairs %.3f, of the mean to the one "
        "before %s",
        static_cast<long long>(engine->steps_taken()), pairs / (kBatches * (kBatches - 1) / 2),
        earlier.empty() ? "-" : std::to_string(cosine(sum, earlier)).c_str());
    if (dataset.maps) {
      const mlo::Tensors goal = towards_the_maps(settings, dataset, models);
      double mean = 0.0, square = 0.0;
      for (const mlo::Tensors& g : all) {
        const double step = -dot(g, goal);
        mean += step / kBatches, square += step * step / kBatches;
      }
      const double deviation = std::sqrt(std::max(square - mean * mean, 0.0));
      std::printf(", towards the maps: cosine %.3f, mean over deviation of a batch %.2f",
                  -cosine(sum, goal), mean / deviation);
    }
    std::printf("\n");
    std::fflush(stdout);
    earlier = sum;
  }
}

}  // namespace bench
