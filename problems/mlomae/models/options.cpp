#include "mlomae/models/options.h"

#include <mlo/error.h>

#include <array>

namespace mlomae {
namespace {

struct Size {
  const char* name;
  int64_t dim, depth, heads, decoder_dim, decoder_depth, decoder_heads;
};
// The decoder's head has 16 to 32 dims, as in MAE.
constexpr std::array<Size, 5> kSizes = {{{"micro", 96, 4, 3, 64, 2, 2},
                                         {"tiny", 192, 12, 3, 128, 4, 4},
                                         {"small", 384, 12, 6, 256, 4, 8},
                                         {"base", 768, 12, 12, 512, 8, 16},
                                         {"large", 1024, 24, 16, 512, 8, 16}}};

// By the width that the published models of a head count have: DeiT, ViT, MAE, DINOv2.
struct Heads {
  int64_t dim, heads;
};
constexpr std::array<Heads, 8> kHeads = {
    {{192, 3}, {384, 6}, {768, 12}, {1024, 16}, {1280, 16}, {1408, 16}, {1536, 24}, {1664, 16}}};

constexpr int64_t kDeepest =
    1000;  // blocks; a thousandfold of what is known to be of use would end in no memory
constexpr int64_t kWidest = 100'000;

void require(bool right, const std::string& given, const std::string& expected) {
  if (!right) throw mlo::ConfigError("model." + given + "; " + expected);
}

std::string is(const char* field, int64_t value) {
  return std::string(field) + " = " + std::to_string(value);
}

}  // namespace

void ModelOptions::validate() const {
  const auto positive = [](const char* field, int64_t value) {
    require(value >= 1, is(field, value), "it must be at least 1");
  };
  positive("image_size", image_size);
  positive("patch", patch);
  positive("depth", depth);
  positive("heads", heads);
  positive("decoder_depth", decoder_depth);
  const auto at_most = [](const char* field, int64_t value, int64_t most) {
    require(value <= most, is(field, value), "it must be at most " + std::to_string(most));
  };
  at_most("depth", depth, kDeepest);
  at_most("decoder_depth", decoder_depth, kDeepest);
  at_most("dim", dim, kWidest);
  at_most("decoder_dim", decoder_dim, kWidest);
  at_most("image_size", image_size, kWidest);
  positive("decoder_heads", decoder_heads);
  require(channels == 1 || channels == 3, is("channels", channels), "images have 1 or 3");
  require(patch <= image_size, is("patch", patch) + " and " + is("image_size", image_size),
          "an image must hold a patch");
  require(image_size % patch == 0, is("image_size", image_size) + " and " + is("patch", patch),
          "the patch must divide the image: choose a patch or model.image_size that does");
  require(patches() >= 2, is("patches", patches()),
          "a mask needs at least 2: take smaller patches");
  const auto width = [](const char* field, int64_t value, const char* by_field, int64_t by) {
    require(value >= 4 && value % 4 == 0 && value % by == 0,
            is(field, value) + " and " + is(by_field, by),
            std::string(field) + " must be a multiple of 4 and of " + by_field);
  };
  width("dim", dim, "heads", heads);
  width("decoder_dim", decoder_dim, "decoder_heads", decoder_heads);
  require(mlp_ratio > 0.0 && mlp_ratio <= 64.0, "mlp_ratio = " + std::to_string(mlp_ratio),
          "it must lie in (0, 64]");
  require(dropout >= 0.0 && dropout < 1.0, "dropout = " + std::to_string(dropout),
          "it must lie in [0, 1)");
}

std::optional<int64_t> heads_of_width(int64_t dim) {
  for (const Heads& known : kHeads)
    if (known.dim == dim) return known.heads;
  return {};
}

ModelOptions model_size(const std::string& name, ModelOptions rest) {
  for (const Size& size : kSizes) {
    if (name != size.name) continue;
    rest.dim = size.dim, rest.depth = size.depth, rest.heads = size.heads;
    rest.decoder_dim = size.decoder_dim, rest.decoder_depth = size.decoder_depth,
    rest.decoder_heads = size.decoder_heads;
    return rest;
  }
  std::string names;
  for (const auto& size : model_sizes()) names += (names.empty() ? "" : ", ") + size;
  throw mlo::ConfigError("no model is called '" + name + "'; there are " + names);
}

std::vector<std::string> model_sizes() {
  std::vector<std::string> names;
  for (const Size& size : kSizes) names.emplace_back(size.name);
  return names;
}

}  // namespace mlomae
