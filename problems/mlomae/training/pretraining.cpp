#include "mlomae/training/pretraining.h"

#include "mlomae/config/json_text.h"
#include "mlomae/config/methods.h"
#include "mlomae/data/maps.h"
#include "mlomae/levels/classify.h"
#include "mlomae/levels/merged.h"
#include "mlomae/levels/validate.h"
#include "mlomae/message.h"
#include "mlomae/run/stamp.h"

#include <mlo/data/image_source.h>
#include <mlo/hypergradient/presets.h>
#include <torch/utils.h>

#include <cmath>

namespace mlomae {
namespace {

// What a setting's choice stands for.
template <class T>
T chosen(const std::string& text, std::initializer_list<std::pair<const char*, T>> choices) {
  for (const auto& [name, value] : choices)
    if (text == name) return value;
  refuse("'{}' is no choice of this setting", abridged(text));
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
  if (s.best_response == "one-step") return mlo::one_step(exact);
  refuse("'{}' is no choice of best_response", abridged(s.best_response));
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
  options.precision = chosen<mlo::Precision>(
      s.precision, {{"float32", mlo::Precision::float32}, {"bfloat16", mlo::Precision::bfloat16}});
  if (responds) options.best_response = best_response(s);
  return options;
}

// Its parameters stay as they are for that part of its steps, while its optimizer hears of the
// gradients.
mlo::LevelOptions delayed(mlo::LevelOptions options, double part, int64_t steps) {
  const auto begin = static_cast<int64_t>(std::llround(part * static_cast<double>(steps)));
  if (begin > 0)
    options.schedule = [begin, then = options.schedule](int64_t step) {
      return step < begin ? 0.0 : then ? then(step) : 1.0;
    };
  return options;
}

int64_t every(int64_t reconstruction_steps, const Length& length) {
  return std::max<int64_t>(1, reconstruction_steps / length.steps_each);
}

}  // namespace

MaskerOptions masker_options(const Settings& settings, const ModelOptions& model) {
  const Settings::Masker& s = settings.masker;
  return {.network = chosen<Network>(s.network, {{"image", Network::image},
                                                 {"convolution", Network::convolution},
                                                 {"attention", Network::attention},
                                                 {"positions", Network::positions}}),
          .patches = model.patches(),
          .dim = s.input == "pixels" ? model.patch_values() : model.dim,
          .hidden = s.hidden,
          .scores = s.selects == "own" ? 2 : 1,
          .zero_output = s.zero_output};
}

Models make_models(const Settings& settings, const Dataset& dataset) {
  torch::manual_seed(static_cast<uint64_t>(settings.run.seed));
  const ModelOptions options = model_options(settings, dataset);
  const Method& method = method_of(settings);
  Models models;
  models.mae = MaskedAutoencoder(options);
  if (method.head)
    models.head = Head(HeadOptions{
        .dim = options.dim,
        .classes = static_cast<int64_t>(dataset.train->classes().size()),
        .dropout = settings.model.head_dropout,
        .norm = settings.model.head_norm == "layer" ? HeadNorm::layer : HeadNorm::batch,
        .reads = settings.model.head_reads == "class" ? Reads::class_token : Reads::mean});
  if (method.learns() || method.masks == Masks::as_initialized)
    models.masker = Masker(masker_options(settings, options));
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
  options.selects = chosen<Selects>(s.selects, {{"rank", Selects::rank},
                                                {"sampled", Selects::sampled},
                                                {"own", Selects::own},
                                                {"uniform", Selects::uniform}});
  options.weighs = chosen<Weighs>(s.weighs, {{"probability", Weighs::probability},
                                             {"normalized", Weighs::normalized},
                                             {"straight-through", Weighs::straight_through},
                                             {"softmax", Weighs::softmax},
                                             {"bounded", Weighs::bounded},
                                             {"alike", Weighs::alike}});
  if (method_of(settings).masks == Masks::uniform)
    options.selects = Selects::uniform, options.weighs = Weighs::alike;
  options.input = chosen<MaskInput>(
      s.input,
      {{"held", MaskInput::held}, {"coupled", MaskInput::coupled}, {"pixels", MaskInput::pixels}});
  options.temperature = s.softmax_temperature;
  options.floor = s.floor;
  options.map_logit = s.map_logit;
  return options;
}

Length run_length(const Settings& settings, const Dataset& dataset) {
  Length length;
  length.steps_each = method_of(settings).learns() ? settings.pretrain.unroll : 1;
  length.reconstruction_steps = settings.run.reconstruction_steps;
  if (length.reconstruction_steps == 0) {
    // An epoch is so many whole batches; a step takes `accumulate` of them.
    const int64_t batches = static_cast<int64_t>(dataset.pretrain.size()) / settings.pretrain.batch;
    const double all = settings.run.epochs * static_cast<double>(batches) /
                       static_cast<double>(settings.pretrain.accumulate);
    require(all < 1e12,
            "run.epochs = {} are {} steps of pretrain.batch = {}; they must be less than 1e12",
            settings.run.epochs, all, settings.pretrain.batch);
    // The same number for every method: whole steps of the top level.
    length.reconstruction_steps =
        static_cast<int64_t>(all) / settings.pretrain.unroll * settings.pretrain.unroll;
    require(length.reconstruction_steps > 0,
            "run.epochs = {} of {} images are less than one step of pretrain.batch × "
            "pretrain.accumulate × pretrain.unroll = {} × {} × {} images; choose more epochs, or "
            "smaller factors",
            settings.run.epochs, dataset.pretrain.size(), settings.pretrain.batch,
            settings.pretrain.accumulate, settings.pretrain.unroll);
  }
  require(length.reconstruction_steps % length.steps_each == 0,
          "run.reconstruction_steps = {} is no multiple of pretrain.unroll = {}; choose one that "
          "is",
          length.reconstruction_steps, length.steps_each);
  return length;
}

namespace {

mlo::EngineOptions engine_options(const Settings& settings, const Length& length,
                                  const EngineFiles& files) {
  mlo::EngineOptions options;
  options.steps = length.steps();
  options.seed = static_cast<uint64_t>(settings.run.seed);
  const int64_t tenth = std::max<int64_t>(1, length.reconstruction_steps / 10);
  options.validate_every =
      every(settings.run.validate_every == 0 ? tenth : settings.run.validate_every, length);
  options.checkpoint = files.checkpoint;
  if (!files.checkpoint.empty())
    options.checkpoint_every = every(settings.run.checkpoint_every, length);
  options.profile = files.profile;
  return options;
}

}  // namespace

std::unique_ptr<mlo::Engine> make_engine(const Settings& settings, const Dataset& dataset,
                                         const Models& models, Monitor monitor,
                                         const EngineFiles& files) {
  const Length length = run_length(settings, dataset);
  const Method& method = method_of(settings);
  const int64_t steps = length.steps();
  auto engine = std::make_unique<mlo::Engine>(engine_options(settings, length, files));

  const auto batches = [&](const std::shared_ptr<const mlo::ImageSet>& images,
                           const std::vector<int64_t>& rows, const LevelSettings& s,
                           const mlo::Augmentation& augmentation) {
    return mlo::image_source(images, rows,
                             {.batch_size = s.batch,
                              .augmentation = augmentation,
                              .workers = settings.data.workers,
                              .prefetch = settings.data.prefetch,
                              .device = at::Device(settings.run.device)});
  };
  const ReconstructOptions reconstruct{
      .masking = masking_options(settings),
      .uniformity = method.uniformity ? settings.baselines.uniformity : 0.0,
      .monitor = std::move(monitor)};
  const mlo::Augmentation augmented = dataset.augmented(settings);
  const bool maps = method.masks == Masks::known;
  auto pretrain = level_options(
      settings.pretrain, length.reconstruction_steps, method.learns(),
      stamped(batches(maps ? joined(dataset.train, dataset.maps) : dataset.pretrain_images(),
                      dataset.pretrain, settings.pretrain,
                      maps ? with_map(augmented, dataset.train->channels()) : augmented),
              {settings, dataset.fingerprint()}));
  if (method.head && method.levels < 3)
    engine->add(
        "pretrain",
        Merged(models.mae, models.head, models.masker, reconstruct, settings.baselines.tradeoff,
               method.learns() ? Classifies::image : Classifies::visible),
        std::move(pretrain));
  else
    engine->add("pretrain", Reconstruct(models.mae, models.masker, reconstruct),
                std::move(pretrain));
  if (method.levels == 3)
    engine->add("head", Classify(models.head, models.mae),
                level_options(settings.head, steps * settings.head.unroll, true,
                              batches(dataset.train, dataset.head, settings.head, augmented)));
  if (method.learns())
    engine->add("masker", Validate(models.masker, models.mae, models.head),
                delayed(level_options(settings.masker, steps, false,
                                      batches(dataset.train, dataset.held_out, settings.masker,
                                              dataset.plain())),
                        settings.masker.delay, steps));
  return engine;
}

}  // namespace mlomae
