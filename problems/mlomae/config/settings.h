#pragma once

#include <cstdint>
#include <string>

namespace mlomae {

/// One level: its optimizer, and how the levels above differentiate through it. What each field
/// means is said where it is registered (fields.cpp), for people and for the program alike.
struct LevelSettings {
  int64_t batch = 128;
  int64_t unroll = 1;
  std::string optimizer = "adamw";
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.0;
  std::string schedule = "cosine";
  double warmup = 0.0, final_factor = 0.0;
  std::string best_response = "one-step";
  bool keep_graph = true;
  std::string precision = "float32";
  int64_t accumulate = 1;
  double clip_norm = 0.0;
};

/// The complete settings of a run. Every field has a key, "section.name", under which JSON files,
/// `--set` and messages know it.
struct Settings {
  struct Data {
    std::string path, unlabelled, maps, format = "auto", on_bad_image = "error", normalize = "data",
                                        pretrain_on = "train";
    double held_out = 0.2, test_fraction = 0.1;
    int64_t split_seed = 0, limit = 0, channels = 0, workers = 1, prefetch = 2;
  } data;

  struct Augmentation {
    std::string crop = "pad";
    int64_t padding = 4;
    double smallest_area = 0.2;
    bool flip = true;
  } augmentation;

  struct Model {
    std::string size = "micro";
    int64_t image_size = 0, patch = 4;
    int64_t dim = 0, depth = 0, heads = 0, decoder_dim = 0, decoder_depth = 0, decoder_heads = 0;
    double dropout = 0.0, head_dropout = 0.1;
    std::string head_norm = "layer", head_reads = "class";
    bool learned_positions = false, normalize_targets = true, checkpoint_activations = false;
  } model;

  LevelSettings pretrain, head;

  /// The network that proposes masks and weights, what is made of its scores, and its level.
  struct Masker : LevelSettings {
    double ratio = 0.75;
    std::string network = "image", input = "held";
    int64_t hidden = 512;
    bool zero_output = false;
    std::string selects = "rank", weighs = "probability";
    double softmax_temperature = 1.0, floor = 0.05, map_logit = 10.0;
    double delay = 0.0;
  } masker;

  struct Baselines {
    double uniformity = 0.01, tradeoff = 0.1;
  } baselines;

  struct Run {
    std::string method = "mlo-mae";
    int64_t reconstruction_steps = 0;
    double epochs = 0.0;
    int64_t seed = 0, threads = 0;
    std::string device = "cpu";
    int64_t log_every = 10, validate_every = 0, checkpoint_every = 500, snapshot_every = 0,
            snapshot_images = 8;
  } run;

  struct Evaluation {
    int64_t batch = 500, neighbours = 20;
    double temperature = 0.07;
    double finetune_epochs = 20.0;
    int64_t finetune_batch = 64;
    double finetune_lr = 1e-3, finetune_weight_decay = 0.05, finetune_warmup = 0.05,
           finetune_layer_decay = 0.75, finetune_label_smoothing = 0.0, finetune_dropout = 0.1;
    int64_t seed = 0;
  } evaluation;

  /// Folders as seen from the root: they are found again from another working folder.
  void make_absolute();

  /// Throws mlo::ConfigError naming key, value and what would do. What depends on the data is
  /// checked when they are opened.
  void validate() const;
};

}  // namespace mlomae
