#include "mlomae/training/pretraining.h"

#include "mlomae/config/fields.h"
#include "mlomae/levels/classify.h"
#include "mlomae/levels/merged.h"
#include "mlomae/levels/validate.h"
#include "mlomae/run/stamp.h"

#include <mlo/data/image_source.h>
#include <mlo/error.h>
#include <mlo/hypergradient/presets.h>
#include <torch/utils.h>

#include <cmath>

namespace mlomae {
namespace {

bool masks_uniformly(const Settings& settings) {
  return settings.run.method == "mae" || settings.run.method == "u-mae";
}

mlo::OptimizerFactory optimizer(const LevelSettings& s) {
  if (s.optimizer == "sgd")
    return mlo::sgd(
        {.lr = s.lr, .momentum = s.beta1, .weight_decay = s.weight_decay, .decay_vectors = false});
  const mlo::AdamOptions options{.lr = s.lr,
                                 .beta1 = s.beta1,
                                 .beta2 = s.beta2,
                                 .eps = s.eps,
                                 .weight_decay = s.weight_decay,
                                 .decay_vectors = false};
  return s.optimizer == "adam" ? mlo::adam(options) : mlo::adamw(options);
}

std::unique_ptr<mlo::Method> best_response(const LevelSettings& s) {
  const mlo::ExactOptions exact{.keep_graph = s.keep_graph};
  if (s.best_response == "reverse-over-forward")
    return mlo::implicit(mlo::reverse_over_forward_oracle(), mlo::identity_solver());
  if (s.best_response == "darts") return mlo::darts();
  if (s.best_response == "betty") return mlo::betty();
  if (s.best_response == "neumann") return mlo::neumann({}, exact);
  if (s.best_response == "cg") return mlo::cg({}, exact);
  return mlo::one_step(exact);
}

// `own_steps` over the whole run.
mlo::LevelOptions level_options(const LevelSettings& s, int64_t own_steps, bool responds,
                                std::unique_ptr<mlo::BatchSource> data) {
  mlo::LevelOptions options;
  options.optimizer = optimizer(s);
  options.data = std::move(data);
  options.unroll = s.unroll;
  const auto warmup = static_cast<int64_t>(std::llround(s.warmup * static_cast<double>(own_steps)));
  if (s.schedule == "cosine")
    options.schedule =
        mlo::cosine({.steps = own_steps, .warmup = warmup, .final_factor = s.final_factor});
  else if (warmup > 0)
    options.schedule = mlo::linear_warmup(warmup);
  options.accumulate = s.accumulate;
  options.clip_norm = s.clip_norm;
  options.precision =
      s.precision == "bfloat16" ? mlo::Precision::bfloat16 : mlo::Precision::float32;
  if (responds) options.best_response = best_response(s);
  return options;
}

int64_t every(int64_t reconstruction_steps, const Length& length) {
  return std::max<int64_t>(1, reconstruction_steps / length.steps_each);
}

}  // namespace

Models make_models(const Settings& settings, const Dataset& dataset) {
  torch::manual_seed(static_cast<uint64_t>(settings.run.seed));
  const ModelOptions options = model_options(settings, dataset);
  const std::string& method = settings.run.method;
  Models models;
  models.mae = MaskedAutoencoder(options);
  if (method == "mlo-mae" || method == "blo-mae")
    models.head = Head(HeadOptions{.dim = options.dim,
                                   .classes = static_cast<int64_t>(dataset.train->classes().size()),
                                   .dropout = settings.model.head_dropout});
  if (!masks_uniformly(settings))
    models.masker = Masker(MaskerOptions{.patches = options.patches(),
                                         .dim = options.dim,
                                         .hidden = settings.masker.hidden,
                                         .zero_output = settings.masker.zero_output});
  const at::Device device(settings.run.device);
  models.mae->to(device);
  if (models.head) models.head->to(device);
  if (models.masker) models.masker->to(device);
  return models;
}

MaskingOptions masking_options(const Settings& settings) {
  const Settings::Masker& s = settings.masker;
  MaskingOptions options;
  options.ratio = s.ratio;
  options.selection = s.selection == "sampled"   ? Selection::sampled
                      : s.selection == "uniform" ? Selection::uniform
                                                 : Selection::rank;
  if (masks_uniformly(settings)) options.selection = Selection::uniform;
  options.weights = s.weights == "normalized"         ? Weights::normalized
                    : s.weights == "straight-through" ? Weights::straight_through
                                                      : Weights::probability;
  options.input = s.input == "coupled" ? MaskInput::coupled : MaskInput::held;
  return options;
}

Length run_length(const Settings& settings, const Dataset& dataset) {
  const bool learns = settings.run.method == "mlo-mae" || settings.run.method == "blo-mae";
  Length length;
  length.steps_each = learns ? settings.pretrain.unroll : 1;
  length.reconstruction_steps = settings.run.reconstruction_steps;
  if (length.reconstruction_steps == 0) {
    // An epoch is so many whole batches; a step takes `accumulate` of them.
    const int64_t batches = static_cast<int64_t>(dataset.pretrain.size()) / settings.pretrain.batch;
    const double all = settings.run.epochs * static_cast<double>(batches) /
                       static_cast<double>(settings.pretrain.accumulate);
    if (!(all < 1e12))
      throw mlo::ConfigError("run.epochs = " + number(settings.run.epochs) + " are " + number(all) +
                             " steps of pretrain.batch = " +
                             std::to_string(settings.pretrain.batch) + "; expected less than 1e12");
    // The same number for every method: whole steps of the top level.
    length.reconstruction_steps =
        static_cast<int64_t>(all) / settings.pretrain.unroll * settings.pretrain.unroll;
    if (length.reconstruction_steps == 0)
      throw mlo::ConfigError("run.epochs = " + number(settings.run.epochs) + " of " +
                             std::to_string(dataset.pretrain.size()) +
                             " images are less than one step of pretrain.batch × "
                             "pretrain.accumulate × pretrain.unroll = " +
                             std::to_string(settings.pretrain.batch) + " × " +
                             std::to_string(settings.pretrain.accumulate) + " × " +
                             std::to_string(settings.pretrain.unroll) +
                             " images; choose more epochs, or smaller factors");
  }
  if (length.reconstruction_steps % length.steps_each != 0)
    throw mlo::ConfigError(
        "run.reconstruction_steps = " + std::to_string(length.reconstruction_steps) +
        " is no multiple of pretrain.unroll = " + std::to_string(length.steps_each) +
        "; choose one that is");
  return length;
}

std::unique_ptr<mlo::Engine> make_engine(const Settings& settings, const Dataset& dataset,
                                         const Models& models, Monitor monitor,
                                         const EngineFiles& files) {
  const Length length = run_length(settings, dataset);
  const std::string& method = settings.run.method;
  const int64_t steps = length.steps();

  mlo::EngineOptions engine_options;
  engine_options.steps = steps;
  engine_options.seed = static_cast<uint64_t>(settings.run.seed);
  const int64_t tenth = std::max<int64_t>(1, length.reconstruction_steps / 10);
  engine_options.validate_every =
      every(settings.run.validate_every == 0 ? tenth : settings.run.validate_every, length);
  engine_options.checkpoint = files.checkpoint;
  if (!files.checkpoint.empty())
    engine_options.checkpoint_every = every(settings.run.checkpoint_every, length);
  engine_options.profile = files.profile;
  auto engine = std::make_unique<mlo::Engine>(engine_options);

  const at::Device device(settings.run.device);
  const auto batches = [&](const std::shared_ptr<const mlo::ImageSet>& images,
                           const std::vector<int64_t>& rows, const LevelSettings& s,
                           bool augmented) {
    return mlo::image_source(
        images, rows,
        {.batch_size = s.batch,
         .augmentation = augmented ? dataset.augmented(settings) : dataset.plain(),
         .workers = settings.data.workers,
         .prefetch = settings.data.prefetch,
         .device = device});
  };

  const ReconstructOptions reconstruct{
      .masking = masking_options(settings),
      .uniformity = method == "u-mae" ? settings.baselines.uniformity : 0.0,
      .monitor = std::move(monitor)};
  const bool learns = !models.head.is_empty();
  auto pretrain = level_options(
      settings.pretrain, length.reconstruction_steps, learns,
      stamped(batches(dataset.pretrain_images(), dataset.pretrain, settings.pretrain, true),
              {settings, dataset.fingerprint()}));
  if (method == "blo-mae") {
    engine->add(
        "pretrain",
        Merged(models.mae, models.head, models.masker, reconstruct, settings.baselines.tradeoff),
        std::move(pretrain));
  } else {
    engine->add("pretrain", Reconstruct(models.mae, models.masker, reconstruct),
                std::move(pretrain));
  }
  if (method == "mlo-mae")
    engine->add("head", Classify(models.head, models.mae),
                level_options(settings.head, steps * settings.head.unroll, true,
                              batches(dataset.train, dataset.head, settings.head, true)));
  if (learns)
    engine->add("masker", Validate(models.masker, models.mae, models.head),
                level_options(settings.masker, steps, false,
                              batches(dataset.train, dataset.held_out, settings.masker, false)));
  return engine;
}

}  // namespace mlomae
