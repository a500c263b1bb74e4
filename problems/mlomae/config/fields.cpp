#include "mlomae/config/fields.h"

#include "mlomae/config/json_text.h"
#include "mlomae/config/methods.h"
#include "mlomae/message.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace mlomae {
namespace {

using Fields = std::vector<Field>;

constexpr Range at_least(double least) { return {.least = least}; }
constexpr Range from_to(double least, double most) { return {.least = least, .most = most}; }
constexpr Range above(double bound) { return {.least = bound, .open_below = true}; }
constexpr Range kPart = {.least = 0.0, .most = 1.0, .open_above = true};

// So that products of these and of numbers of images are integers.
constexpr double kMostFactor = 65536, kMostPixels = 16384;
constexpr std::size_t kLongest = 4096;

Fields data(Settings::Data& s) {
  return {
      {"path", &s.path, "folder with the images"},
      {"unlabelled", &s.unlabelled,
       "folder with images for the reconstruction level alone, at any depth, in place of those of "
       "data.path; empty: none"},
      {"maps", &s.maps,
       "folder with a map an image of data.path, of which `masker` can make masks and weights "
       "(oracle), and by which T is judged: train-maps-idx3-ubyte (idx, cifar10, cifar100), or for "
       "each image train/CLASS/NAME.jpg a grey train/CLASS/NAME.png; empty: none"},
      {"format",
       &s.format,
       "cifar10, cifar100: the official binary files; idx: MNIST's files; folder: "
       "train/CLASS/*.jpg and test/CLASS/*.jpg (or val, valid, validation), or just CLASS/*.jpg, "
       "or *.jpg without labels (mae, u-mae, fixed); auto: what the folder holds",
       {"auto", "cifar10", "cifar100", "idx", "folder"}},
      {"channels", &s.channels, "1: grey, 3: colour; 0: as the data set has it (folder: 3)",
       from_to(0, 3)},
      {"on_bad_image",
       &s.on_bad_image,
       "an image file that cannot be decoded ends the run, or is left out (folder)",
       {"error", "skip"}},
      {"held_out", &s.held_out,
       "part of the training images, of each class, that the masker is trained on", kPart},
      {"split_seed", &s.split_seed, "which images are held out", at_least(0)},
      {"test_fraction", &s.test_fraction,
       "part of the images, of each class, kept for testing where the data set comes without a "
       "test part; 0: none",
       kPart},
      {"limit", &s.limit, "use only so many training images of data.path, each class alike; 0: all",
       at_least(0)},
      {"pretrain_on",
       &s.pretrain_on,
       "train: without the held-out images (the paper); all: with them (the authors' code)",
       {"train", "all"}},
      {"normalize",
       &s.normalize,
       "mean and deviation of the channels: of the training images, or ImageNet's",
       {"data", "imagenet"}},
      {"workers", &s.workers,
       "threads a level that prepare its batches ahead; 0: none. The batches are the same",
       from_to(0, 256)},
      {"prefetch", &s.prefetch, "batches a level that are prepared ahead", at_least(1)}};
}

Fields augmentation(Settings::Augmentation& s) {
  return {{"crop",
           &s.crop,
           "pad: a random crop of the padded image; resized: of random area and aspect ratio, "
           "resized (bicubic); none",
           {"none", "pad", "resized"}},
          {"padding", &s.padding, "pixels on each side, for crop = pad", from_to(0, kMostPixels)},
          {"smallest_area",
           &s.smallest_area,
           "of the image's, for crop = resized",
           {.least = 0.0, .most = 1.0, .open_below = true}},
          {"flip", &s.flip, "left and right exchanged half of the time"}};
}

Fields model(Settings::Model& s) {
  return {
      {"size",
       &s.size,
       "width and depth of encoder and decoder",
       {"micro", "tiny", "small", "base", "large"}},
      {"image_size", &s.image_size,
       "side of the network's input in pixels, to which other images are resized and cropped; 0: "
       "as all the images have it",
       from_to(0, kMostPixels)},
      {"patch", &s.patch, "side of a patch in pixels", at_least(1)},
      {"dim", &s.dim, "width of the encoder; this and the next five: 0 is the size's", at_least(0)},
      {"depth", &s.depth, "blocks of the encoder", at_least(0)},
      {"heads", &s.heads, "attention heads of the encoder", at_least(0)},
      {"decoder_dim", &s.decoder_dim, "width of the decoder", at_least(0)},
      {"decoder_depth", &s.decoder_depth, "blocks of the decoder", at_least(0)},
      {"decoder_heads", &s.decoder_heads, "attention heads of the decoder", at_least(0)},
      {"dropout", &s.dropout, "of encoder and decoder", kPart},
      {"head_dropout", &s.head_dropout, "before the classifier's linear layer", kPart},
      {"head_norm",
       &s.head_norm,
       "what the classifier does to features first: layer: LayerNorm (the paper); batch: each by "
       "its mean and deviation over the batch, as linear probes do",
       {"layer", "batch"}},
      {"head_reads",
       &s.head_reads,
       "what the classifier reads: the class token (the paper), or the mean of patches",
       {"class", "mean"}},
      {"learned_positions", &s.learned_positions,
       "train the position embeddings (the authors' code) or leave them sines and cosines"},
      {"normalize_targets", &s.normalize_targets,
       "reconstruct each patch normalized by its own mean and deviation"},
      {"checkpoint_activations", &s.checkpoint_activations,
       "recompute blocks in the backward pass: less memory, more time"}};
}

Fields masker(Settings::Masker& s) {
  return {
      {"ratio",
       &s.ratio,
       "part of the patches that is masked; 0: nothing masked, 1: nothing visible",
       {.least = 0.0, .most = 1.0, .open_below = true, .open_above = true}},
      {"network",
       &s.network,
       "image: two linear layers on the whole image (the paper); convolution: shared by all "
       "patches, each seen with its neighbours and the image's mean; attention: shared, two "
       "transformer blocks; positions: a number a position, whatever the image",
       {"image", "convolution", "attention", "positions"}},
      {"input",
       &s.input,
       "the masker reads the patch embeddings as constants (the paper), is coupled to the encoder "
       "by them (the authors' code), or reads the pixels",
       {"held", "coupled", "pixels"}},
      {"hidden", &s.hidden, "width of the masker's hidden layers", at_least(1)},
      {"zero_output", &s.zero_output, "start with probability 1/2 everywhere instead of at random"},
      {"selects",
       &s.selects,
       "the masked patches are: rank: those of highest probability (the paper); sampled: drawn "
       "by the masker's logits; own: drawn by a second score of the masker; uniform: any (MAE)",
       {"rank", "sampled", "own", "uniform"}},
      {"weighs",
       &s.weighs,
       "what a masked patch counts in the loss: probability: σ(logit) (the paper); normalized: the "
       "same, of mean 1 in an image; straight-through: 1, with the probability's derivative; "
       "softmax: the floor, and the rest by exp(logit / softmax_temperature), of mean 1; bounded: "
       "from the floor to 1 by the logit less the image's mean, of mean 1; alike: 1",
       {"probability", "normalized", "straight-through", "softmax", "bounded", "alike"}},
      {"softmax_temperature", &s.softmax_temperature, "for weighs = softmax", from_to(1e-6, 1e6)},
      {"floor", &s.floor,
       "what a patch counts at least, of the mean (weighs = softmax), of the most (bounded)",
       kPart},
      {"map_logit", &s.map_logit,
       "oracle: the logit of a patch that is in its image's map; minus this where it is not",
       from_to(-1e4, 1e4)},
      {"delay", &s.delay,
       "part of the steps in which encoder and head are trained and the masker stays as it is",
       kPart}};
}

// `responds`: there are levels above it.
Fields level(LevelSettings& s, bool responds) {
  Fields all = {{"batch", &s.batch, "images a step", at_least(1)}};
  const auto add = [&](const Fields& more) { all.insert(all.end(), more.begin(), more.end()); };
  if (responds)
    add({{"unroll", &s.unroll, "own steps for each step of the level above",
          from_to(1, kMostFactor)}});
  add({{"optimizer", &s.optimizer, "update rule", {"sgd", "adam", "adamw"}},
       {"lr", &s.lr, "learning rate", above(0)},
       {"beta1", &s.beta1, "decay of the mean of gradients (sgd: momentum)", kPart},
       {"beta2", &s.beta2, "decay of the mean of their squares", kPart},
       {"eps", &s.eps, "added to the root of that mean", above(0)},
       {"weight_decay", &s.weight_decay, "of matrices, not of biases and norms", at_least(0)},
       {"schedule", &s.schedule, "of the learning rate", {"constant", "cosine"}},
       {"warmup", &s.warmup, "part of the steps over which the learning rate rises from zero",
        kPart},
       {"final_factor", &s.final_factor, "of the learning rate at the end of the cosine",
        at_least(0)}});
  if (responds)
    add({{"best_response",
          &s.best_response,
          "how the levels above differentiate through this one",
          {"reverse-over-forward", "one-step", "darts", "betty", "neumann", "cg"}},
         {"keep_graph", &s.keep_graph,
          "one-step, neumann, cg: keep the step's graph (faster), or evaluate it again (less "
          "memory)"}});
  add({{"precision",
        &s.precision,
        "of the forward and backward products; parameters stay float32",
        {"float32", "bfloat16"}},
       {"accumulate", &s.accumulate, "micro-batches a step, each of `batch` images",
        from_to(1, kMostFactor)},
       {"clip_norm", &s.clip_norm, "largest norm of the gradient; 0: any", at_least(0)}});
  return all;
}

Fields baselines(Settings::Baselines& s) {
  return {{"uniformity", &s.uniformity, "u-mae: factor of the uniformity term", at_least(0)},
          {"tradeoff", &s.tradeoff, "blo-mae, sup-mae: factor of the classification loss",
           at_least(0)}};
}

Fields run(Settings::Run& s) {
  std::string about;
  for (const Method& method : methods())
    about += message("{}{}: {}", about.empty() ? "" : "; ", method.name, method.about);
  return {
      {"method", &s.method, about, method_names()},
      {"reconstruction_steps", &s.reconstruction_steps,
       "steps of encoder and decoder, whatever the method; 0: from run.epochs", from_to(0, 1e12)},
      {"epochs", &s.epochs, "the same in epochs of the pretraining images", from_to(0, 1e9)},
      {"seed", &s.seed, "of initialization, batches, masks and dropout", at_least(0)},
      {"device", &s.device, "cpu, cuda or cuda:N"},
      {"threads", &s.threads, "of LibTorch; 0: its own choice", from_to(0, 1024)},
      {"log_every", &s.log_every, "steps of the top level between lines of the log", at_least(1)},
      {"validate_every", &s.validate_every,
       "reconstruction steps between k-nearest-neighbour checks; 0: ten a run", at_least(0)},
      {"checkpoint_every", &s.checkpoint_every, "reconstruction steps between checkpoints",
       at_least(1)},
      {"snapshot_every", &s.snapshot_every,
       "reconstruction steps between pictures of the masks; 0: ten a run", at_least(0)},
      {"snapshot_images", &s.snapshot_images, "images in those pictures", from_to(1, 1000)}};
}

Fields evaluation(Settings::Evaluation& s) {
  return {
      {"batch", &s.batch, "images at a time through the encoder", at_least(1)},
      {"neighbours", &s.neighbours, "k of k-nearest neighbours", at_least(1)},
      {"temperature", &s.temperature, "neighbours count exp(similarity / temperature)", above(0)},
      {"finetune_epochs",
       &s.finetune_epochs,
       "epochs of fine-tuning, and of training from scratch",
       {.least = 0.0, .most = 1e6, .open_below = true}},
      {"finetune_batch", &s.finetune_batch, "images a step", at_least(1)},
      {"finetune_lr", &s.finetune_lr, "learning rate of AdamW, of the last block", above(0)},
      {"finetune_weight_decay", &s.finetune_weight_decay, "of matrices", at_least(0)},
      {"finetune_warmup", &s.finetune_warmup,
       "part of the steps over which the learning rate rises", kPart},
      {"finetune_layer_decay",
       &s.finetune_layer_decay,
       "of the learning rate, from each block to the one before it; from scratch: 1",
       {.least = 0.0, .most = 1.0, .open_below = true}},
      {"finetune_label_smoothing", &s.finetune_label_smoothing, "of the cross entropy", kPart},
      {"finetune_dropout", &s.finetune_dropout, "before the linear layer", kPart},
      {"seed", &s.seed, "of heads, batches and splits in evaluations", at_least(0)}};
}

bool is_utf8(const std::string& text) {
  try {
    return !nlohmann::json(text).dump().empty();
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

}  // namespace

bool Range::holds(double value) const {
  return (open_below ? value > least : value >= least) &&
         (open_above ? value < most : value <= most);
}

std::string Range::text() const {
  std::string text;
  if (std::isfinite(least)) text = message("{} {}", open_below ? "more than" : "at least", least);
  if (std::isfinite(most))
    text +=
        message("{}{} {}", text.empty() ? "" : " and ", open_above ? "less than" : "at most", most);
  return text;
}

Field::Field(std::string key, Value value, std::string about, Range range)
    : key(std::move(key)), value(value), about(std::move(about)), range(range) {}

Field::Field(std::string key, Value value, std::string about, std::vector<std::string> choices)
    : key(std::move(key)), value(value), about(std::move(about)), choices(std::move(choices)) {}

void Field::check_choice(const std::string& text, const std::string& origin) const {
  if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end())
    refuse("{}{} = '{}'; it must be one of {} ({})", origin, key, abridged(text), listed(choices),
           about);
}

void Field::check() const {
  // A run's settings are kept as JSON, which knows no infinity and no bytes that are not UTF-8; and
  // LibTorch converts numbers to the type of what is trained.
  if (const auto* text = std::get_if<std::string*>(&value)) {
    check_choice(**text, "");
    require(is_utf8(**text),
            "{} = '{}'; it must be UTF-8: rename it, or give a link to it that has such a name",
            key, abridged(**text));
    require((**text).size() <= kLongest,
            "{} = '{}'; it must be of at most {} bytes, as many as a path may have", key,
            abridged(**text), kLongest);
  } else if (const auto* integer = std::get_if<int64_t*>(&value)) {
    require(range.holds(static_cast<double>(**integer)), "{} = {}; it must be {} ({})", key,
            **integer, range.text(), about);
  } else if (const auto* real = std::get_if<double*>(&value)) {
    const double size = std::abs(**real);
    require(std::isfinite(size), "{} = {}; it must be a finite number", key, **real);
    require(size == 0.0 || (size >= std::numeric_limits<float>::min() &&
                            size <= std::numeric_limits<float>::max()),
            "{} = {}; it must be a number that float32 holds, in which is trained: 0, or of a size "
            "from 1.2e-38 to 3.4e+38",
            key, **real);
    require(range.holds(**real), "{} = {}; it must be {} ({})", key, **real, range.text(), about);
  }
}

std::vector<Field> fields(Settings& settings) {
  Fields all;
  const auto add = [&](const std::string& section, Fields fields) {
    for (Field& field : fields) {
      field.key = section + "." + field.key;
      all.push_back(std::move(field));
    }
  };
  add("data", data(settings.data));
  add("augmentation", augmentation(settings.augmentation));
  add("model", model(settings.model));
  add("pretrain", level(settings.pretrain, true));
  add("head", level(settings.head, true));
  add("masker", masker(settings.masker));
  add("masker", level(settings.masker, false));
  add("baselines", baselines(settings.baselines));
  add("run", run(settings.run));
  add("evaluation", evaluation(settings.evaluation));
  return all;
}

}  // namespace mlomae
