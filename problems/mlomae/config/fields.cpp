#include "mlomae/config/fields.h"

#include <array>
#include <charconv>

namespace mlomae {
namespace {

using Fields = std::vector<Field>;

void data(Fields& all, Settings::Data& s) {
  all.push_back({"data.path", &s.path, "folder with the images"});
  all.push_back({"data.unlabelled", &s.unlabelled,
                 "folder with images for the reconstruction level alone, at any depth, in place of "
                 "those of data.path; empty: none"});
  all.push_back({"data.format",
                 &s.format,
                 "cifar10, cifar100: the official binary files; idx: MNIST's files; folder: "
                 "train/CLASS/*.jpg and "
                 "test/CLASS/*.jpg (or val, valid, validation), or just CLASS/*.jpg, or *.jpg "
                 "without labels (mae, u-mae, fixed); "
                 "auto: what the folder holds",
                 {"auto", "cifar10", "cifar100", "idx", "folder"}});
  all.push_back(
      {"data.channels", &s.channels, "1: grey, 3: colour; 0: as the data set has it (folder: 3)"});
  all.push_back({"data.on_bad_image",
                 &s.on_bad_image,
                 "an image file that cannot be decoded ends the run, or is left out (folder)",
                 {"error", "skip"}});
  all.push_back({"data.held_out", &s.held_out,
                 "part of the training images, of each class, that the masker is trained on"});
  all.push_back({"data.split_seed", &s.split_seed, "which images are held out"});
  all.push_back({"data.test_fraction", &s.test_fraction,
                 "part of the images, of each class, kept for testing where the data set comes "
                 "without a test part; 0: none"});
  all.push_back({"data.limit", &s.limit,
                 "use only so many training images of data.path, each class alike; 0: all"});
  all.push_back(
      {"data.pretrain_on",
       &s.pretrain_on,
       "train: without the held-out images (the paper); all: with them (the authors' code)",
       {"train", "all"}});
  all.push_back({"data.normalize",
                 &s.normalize,
                 "mean and deviation of the channels: of the training images, or ImageNet's",
                 {"data", "imagenet"}});
  all.push_back(
      {"data.workers", &s.workers,
       "threads a level that prepare its batches ahead; 0: none. The batches are the same"});
  all.push_back({"data.prefetch", &s.prefetch, "batches a level that are prepared ahead"});
}

void augmentation(Fields& all, Settings::Augmentation& s) {
  all.push_back({"augmentation.crop",
                 &s.crop,
                 "pad: a random crop of the padded image; resized: of random area and aspect "
                 "ratio, resized (bicubic); none",
                 {"none", "pad", "resized"}});
  all.push_back({"augmentation.padding", &s.padding, "pixels on each side, for crop = pad"});
  all.push_back(
      {"augmentation.smallest_area", &s.smallest_area, "of the image's, for crop = resized"});
  all.push_back({"augmentation.flip", &s.flip, "left and right exchanged half of the time"});
}

void model(Fields& all, Settings::Model& s) {
  all.push_back({"model.size",
                 &s.size,
                 "width and depth of encoder and decoder",
                 {"micro", "tiny", "small", "base", "large"}});
  all.push_back({"model.image_size", &s.image_size,
                 "side of the network's input in pixels, to which other images are resized and "
                 "cropped; 0: as all the images have it"});
  all.push_back({"model.patch", &s.patch, "side of a patch in pixels"});
  all.push_back(
      {"model.dim", &s.dim, "width of the encoder; this and the next five: 0 is the size's"});
  all.push_back({"model.depth", &s.depth, "blocks of the encoder"});
  all.push_back({"model.heads", &s.heads, "attention heads of the encoder"});
  all.push_back({"model.decoder_dim", &s.decoder_dim, "width of the decoder"});
  all.push_back({"model.decoder_depth", &s.decoder_depth, "blocks of the decoder"});
  all.push_back({"model.decoder_heads", &s.decoder_heads, "attention heads of the decoder"});
  all.push_back({"model.dropout", &s.dropout, "of encoder and decoder"});
  all.push_back({"model.head_dropout", &s.head_dropout, "before the classifier's linear layer"});
  all.push_back(
      {"model.learned_positions", &s.learned_positions,
       "train the position embeddings (the authors' code) or leave them sines and cosines"});
  all.push_back({"model.normalize_targets", &s.normalize_targets,
                 "reconstruct each patch normalized by its own mean and deviation"});
  all.push_back({"model.checkpoint_activations", &s.checkpoint_activations,
                 "recompute blocks in the backward pass: less memory, more time"});
}

void masker(Fields& all, Settings::Masker& s) {
  all.push_back({"masker.ratio", &s.ratio, "part of the patches that is masked"});
  all.push_back({"masker.selection",
                 &s.selection,
                 "the masked patches are: rank: those of highest probability (the paper); sampled: "
                 "drawn by the masker's logits; "
                 "uniform: any",
                 {"rank", "sampled", "uniform"}});
  all.push_back({"masker.weights",
                 &s.weights,
                 "a masked patch's weight in the loss: its probability (the paper), normalized to "
                 "mean 1, or 1 with the "
                 "probability's derivative",
                 {"probability", "normalized", "straight-through"}});
  all.push_back({"masker.input",
                 &s.input,
                 "the masker reads the patch embeddings as constants (the paper) or is "
                 "coupled to the encoder (the authors' code)",
                 {"held", "coupled"}});
  all.push_back({"masker.zero_output", &s.zero_output,
                 "start with probability 1/2 everywhere instead of at random"});
  all.push_back({"masker.hidden", &s.hidden, "width of the masker's hidden layer"});
}

void level(Fields& all, const std::string& name, LevelSettings& s, bool responds) {
  const std::string k = name + ".";
  all.push_back({k + "batch", &s.batch, "images a step"});
  if (responds)
    all.push_back({k + "unroll", &s.unroll, "own steps for each step of the level above"});
  all.push_back({k + "optimizer", &s.optimizer, "update rule", {"sgd", "adam", "adamw"}});
  all.push_back({k + "lr", &s.lr, "learning rate"});
  all.push_back({k + "beta1", &s.beta1, "decay of the mean of gradients (sgd: momentum)"});
  all.push_back({k + "beta2", &s.beta2, "decay of the mean of their squares"});
  all.push_back({k + "eps", &s.eps, "added to the root of that mean"});
  all.push_back({k + "weight_decay", &s.weight_decay, "of matrices, not of biases and norms"});
  all.push_back({k + "schedule", &s.schedule, "of the learning rate", {"constant", "cosine"}});
  all.push_back(
      {k + "warmup", &s.warmup, "part of the steps over which the learning rate rises from zero"});
  all.push_back(
      {k + "final_factor", &s.final_factor, "of the learning rate at the end of the cosine"});
  if (responds) {
    all.push_back({k + "best_response",
                   &s.best_response,
                   "how the levels above differentiate through this one",
                   {"reverse-over-forward", "one-step", "darts", "betty", "neumann", "cg"}});
    all.push_back({k + "keep_graph", &s.keep_graph,
                   "one-step, neumann, cg: keep the step's graph (faster), or evaluate it again "
                   "(less memory)"});
  }
  all.push_back({k + "precision",
                 &s.precision,
                 "of the forward and backward products; parameters stay float32",
                 {"float32", "bfloat16"}});
  all.push_back({k + "accumulate", &s.accumulate, "micro-batches a step, each of `batch` images"});
  all.push_back({k + "clip_norm", &s.clip_norm, "largest norm of the gradient; 0: any"});
}

void run(Fields& all, Settings& settings) {
  all.push_back({"baselines.uniformity", &settings.baselines.uniformity,
                 "u-mae: factor of the uniformity term"});
  all.push_back({"baselines.tradeoff", &settings.baselines.tradeoff,
                 "blo-mae: factor of the classification loss"});
  Settings::Run& s = settings.run;
  all.push_back({"run.method",
                 &s.method,
                 "mlo-mae: masks learned; mae: uniform masks; u-mae: and uniformity; blo-mae: two "
                 "levels instead of three; "
                 "fixed: the masker as initialized",
                 {"mlo-mae", "mae", "u-mae", "blo-mae", "fixed"}});
  all.push_back({"run.reconstruction_steps", &s.reconstruction_steps,
                 "steps of encoder and decoder, whatever the method; 0: from run.epochs"});
  all.push_back({"run.epochs", &s.epochs, "the same in epochs of the pretraining images"});
  all.push_back({"run.seed", &s.seed, "of initialization, batches, masks and dropout"});
  all.push_back({"run.device", &s.device, "cpu, cuda or cuda:N"});
  all.push_back({"run.threads", &s.threads, "of LibTorch; 0: its own choice"});
  all.push_back({"run.log_every", &s.log_every, "steps of the top level between lines of the log"});
  all.push_back({"run.validate_every", &s.validate_every,
                 "reconstruction steps between k-nearest-neighbour checks; 0: ten a run"});
  all.push_back(
      {"run.checkpoint_every", &s.checkpoint_every, "reconstruction steps between checkpoints"});
  all.push_back({"run.snapshot_every", &s.snapshot_every,
                 "reconstruction steps between pictures of the masks; 0: ten a run"});
  all.push_back({"run.snapshot_images", &s.snapshot_images, "images in those pictures"});
}

void evaluation(Fields& all, Settings::Evaluation& s) {
  all.push_back({"evaluation.batch", &s.batch, "images at a time through the encoder"});
  all.push_back({"evaluation.neighbours", &s.neighbours, "k of k-nearest neighbours"});
  all.push_back(
      {"evaluation.temperature", &s.temperature, "neighbours count exp(similarity / temperature)"});
  all.push_back({"evaluation.finetune_epochs", &s.finetune_epochs,
                 "epochs of fine-tuning, and of training from scratch"});
  all.push_back({"evaluation.finetune_batch", &s.finetune_batch, "images a step"});
  all.push_back(
      {"evaluation.finetune_lr", &s.finetune_lr, "learning rate of AdamW, of the last block"});
  all.push_back({"evaluation.finetune_weight_decay", &s.finetune_weight_decay, "of matrices"});
  all.push_back({"evaluation.finetune_warmup", &s.finetune_warmup,
                 "part of the steps over which the learning rate rises"});
  all.push_back({"evaluation.finetune_layer_decay", &s.finetune_layer_decay,
                 "of the learning rate, from each block to the one before it; from scratch: 1"});
  all.push_back(
      {"evaluation.finetune_label_smoothing", &s.finetune_label_smoothing, "of the cross entropy"});
  all.push_back({"evaluation.finetune_dropout", &s.finetune_dropout, "before the linear layer"});
  all.push_back({"evaluation.seed", &s.seed, "of heads, batches and splits in evaluations"});
}

}  // namespace

std::vector<Field> fields(Settings& settings) {
  Fields all;
  data(all, settings.data);
  augmentation(all, settings.augmentation);
  model(all, settings.model);
  level(all, "pretrain", settings.pretrain, true);
  level(all, "head", settings.head, true);
  masker(all, settings.masker);
  level(all, "masker", settings.masker, false);
  run(all, settings);
  evaluation(all, settings.evaluation);
  return all;
}

std::string number(double value) {
  std::array<char, 32> text = {};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

}  // namespace mlomae
