#include "mlomae/config/presets.h"

#include "mlomae/config/json_text.h"
#include "mlomae/message.h"

#include <nlohmann/json.hpp>

namespace mlomae {
namespace {

// What the paper's CIFAR and ImageNet settings have in common, with our derivatives: exact where
// that is cheap, and the masker's eps below the size of its gradients (docs/mlomae.md: products
// times learning rates are 1e-10 to 1e-9 a coordinate).
Settings paper() {
  Settings s;
  s.model.size = "base";
  s.pretrain.best_response = "reverse-over-forward";
  s.masker.eps = 1e-12;
  s.run.validate_every = 0;
  return s;
}

Settings cifar() {
  Settings s = paper();
  s.model.patch = 2;
  s.pretrain.unroll = 2;
  s.pretrain.lr = 1e-4;
  s.pretrain.weight_decay = 1e-3;
  s.head.lr = 1e-3;
  s.masker.lr = 1e-3;
  s.run.epochs = 200;
  s.evaluation.finetune_lr = 1e-4;
  s.evaluation.finetune_epochs = 100;
  return s;
}

Settings imagenet() {
  Settings s = paper();
  s.augmentation.crop = "resized";
  s.data.normalize = "imagenet";
  s.model.image_size = 224;
  s.model.patch = 16;
  s.pretrain.lr = 1.5e-4;
  s.head.lr = 5e-4;
  s.masker.lr = 5e-5;
  for (LevelSettings* level :
       std::initializer_list<LevelSettings*>{&s.pretrain, &s.head, &s.masker}) {
    level->batch = 256;
    level->weight_decay = 0.05;
    level->precision = "bfloat16";
  }
  s.data.workers = 4;
  s.run.epochs = 50;
  return s;
}

Settings reference() {
  Settings s = cifar();
  s.data.pretrain_on = "all";
  s.model.learned_positions = true;
  s.masker.input = "coupled";
  s.pretrain.best_response = "betty";
  s.head.best_response = "betty";
  s.head.weight_decay = 0.01;  // torch's AdamW has it where none is given
  s.masker.weight_decay = 0.01;
  s.masker.eps = 1e-8;
  return s;
}

// What works with small models and few steps (docs/mlomae.md).
Settings micro() {
  Settings s;
  s.model.size = "micro";
  s.model.patch = 4;
  s.model.head_norm = "batch";
  s.model.head_dropout = 0.0;
  s.head.batch = 256;
  s.masker.network = "convolution";
  s.masker.input = "pixels";
  s.masker.hidden = 64;
  s.masker.zero_output = true;
  s.masker.selects = "uniform";
  s.masker.weighs = "softmax";
  s.masker.floor = 0.0;
  s.pretrain.unroll = 2;
  s.pretrain.lr = 1e-3;
  s.pretrain.weight_decay = 0.05;
  s.pretrain.warmup = 0.1;
  s.pretrain.best_response = "reverse-over-forward";
  s.head.lr = 3e-3;
  s.masker.lr = 3e-3;
  s.masker.eps = 1e-12;
  s.run.reconstruction_steps = 2000;
  return s;
}

Settings demo() {
  Settings s = micro();
  s.model.dim = 64;
  s.model.depth = 3;
  s.model.heads = 2;
  s.model.decoder_dim = 32;
  s.model.decoder_depth = 1;
  s.pretrain.batch = 64;
  s.run.reconstruction_steps = 800;
  s.run.checkpoint_every = 200;
  return s;
}

}  // namespace

std::vector<Preset> presets() {
  return {{"demo",
           "a minute or two on a processor core: small grey images, a model smaller than micro"},
          {"micro", "32-pixel images on a processor: model micro, 2,000 reconstruction steps"},
          {"cifar10", "the paper's settings for CIFAR-10: ViT-B, patch 2, 200 epochs"},
          {"cifar100", "the paper's settings for CIFAR-100: the same"},
          {"imagenet", "the paper's settings for ImageNet: ViT-B, patch 16, 50 epochs"},
          {"reference", "CIFAR as the authors' code does it, where that differs from the paper"}};
}

Settings preset(const std::string& name) {
  if (name == "demo") return demo();
  if (name == "micro") return micro();
  if (name == "cifar10" || name == "cifar100") return cifar();
  if (name == "imagenet") return imagenet();
  if (name == "reference") return reference();
  std::vector<std::string> known;
  for (const Preset& p : presets()) known.push_back(p.name);
  refuse("there is no preset '{}'; choose one of {}", abridged(name), listed(known));
}

}  // namespace mlomae
