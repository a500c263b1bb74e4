#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mlomae {

/// Shape of encoder E, decoder D and what they are trained on (He et al. 2022). Images are square,
/// [B, channels, side, side].
struct ModelOptions {
  int64_t image_size = 32;  ///< side in pixels
  int64_t channels = 3;
  int64_t patch = 4;                       ///< side of a patch in pixels; divides image_size
  int64_t dim = 96, depth = 4, heads = 3;  ///< encoder; dim is a multiple of heads and of 4
  int64_t decoder_dim = 64, decoder_depth = 2, decoder_heads = 2;  ///< likewise
  double mlp_ratio = 4.0;  ///< width of a block's hidden layer, in dims
  /// after attention's projection and each layer of the MLP; both encoder and decoder
  double dropout = 0.0;
  /// train the position embeddings, which begin as sines and cosines
  bool learned_positions = false;
  /// reconstruct each patch's pixels normalized by its own mean and deviation
  bool normalize_targets = true;
  /// recompute each block in the backward pass instead of storing it
  bool checkpoint_activations = false;

  int64_t side() const { return image_size / patch; }  ///< patches a side
  int64_t patches() const { return side() * side(); }  ///< N
  int64_t patch_values() const { return patch * patch * channels; }

  /// Throws mlo::ConfigError naming field, value and constraint.
  void validate() const;
};

/// "micro" (4×96, for a CPU), "tiny" (12×192), "small" (12×384), "base" (12×768), "large"
/// (24×1024): the fields of width and depth set, the others as given in `rest`. Throws
/// mlo::ConfigError naming the sizes there are.
ModelOptions model_size(const std::string& name, ModelOptions rest = {});
std::vector<std::string> model_sizes();

/// Attention heads that the published vision transformers of a width have (192: 3, 768: 12, 1280:
/// 16, …); nothing for other widths.
std::optional<int64_t> heads_of_width(int64_t dim);

}  // namespace mlomae
