#include "mlomae/models/options.h"

#include "mlomae/message.h"

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

struct Bounded {
  const char* field;
  int64_t value, least, most;
};

}  // namespace

void ModelOptions::validate() const {
  for (const Bounded& b :
       std::initializer_list<Bounded>{{"image_size", image_size, 1, kWidest},
                                      {"patch", patch, 1, kWidest},
                                      {"depth", depth, 1, kDeepest},
                                      {"heads", heads, 1, kWidest},
                                      {"dim", dim, 4, kWidest},
                                      {"decoder_depth", decoder_depth, 1, kDeepest},
                                      {"decoder_heads", decoder_heads, 1, kWidest},
                                      {"decoder_dim", decoder_dim, 4, kWidest}}) {
    require(b.value >= b.least, "model.{} = {}; it must be at least {}", b.field, b.value, b.least);
    require(b.value <= b.most, "model.{} = {}; it must be at most {}", b.field, b.value, b.most);
  }
  require(channels == 1 || channels == 3, "model.channels = {}; it must be 1 or 3", channels);
  require(patch <= image_size, "model.patch = {} and image_size = {}; an image must hold a patch",
          patch, image_size);
  require(
      image_size % patch == 0,
      "model.image_size = {} and patch = {}; the patch must divide the image: choose a patch or "
      "model.image_size that does",
      image_size, patch);
  require(patches() >= 2, "model.patches = {}; a mask needs at least 2: take smaller patches",
          patches());
  const auto divides = [](const char* prefix, int64_t width, int64_t by) {
    require(width % 4 == 0 && width % by == 0,
            "model.{0}dim = {1} and {0}heads = {2}; {0}dim must be a multiple of 4 and of {0}heads",
            prefix, width, by);
  };
  divides("", dim, heads);
  divides("decoder_", decoder_dim, decoder_heads);
  require(mlp_ratio > 0.0 && mlp_ratio <= 64.0,
          "model.mlp_ratio = {}; it must be more than 0 and at most 64", mlp_ratio);
  require(dropout >= 0.0 && dropout < 1.0,
          "model.dropout = {}; it must be at least 0 and less than 1", dropout);
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
  refuse("no model is called '{}'; there are {}", name, listed(model_sizes()));
}

std::vector<std::string> model_sizes() {
  std::vector<std::string> names;
  for (const Size& size : kSizes) names.emplace_back(size.name);
  return names;
}

}  // namespace mlomae
