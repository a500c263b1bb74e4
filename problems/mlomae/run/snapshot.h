#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>

namespace mlomae {

/// What a run's masks and reconstructions look like at one step. n images of N patches.
struct Snapshot {
  int64_t step = 0;           ///< reconstruction steps taken
  int64_t patch = 4;          ///< side of a patch in pixels
  at::Tensor images;          ///< uint8 [n, C, S, S]
  at::Tensor masked;          ///< uint8 [n, N]: 1 where masked
  at::Tensor reconstruction;  ///< uint8 [n, C, S, S]
  /// float32 [n, N], 0 … 1: the probability to be masked, or what a patch counts in comparison with
  /// the image's heaviest; undefined where nobody says
  at::Tensor probability;
  at::Tensor map;            ///< float32 [n, N], the part of a patch in the map; undefined: no map
  at::Tensor position_rate;  ///< float32 [N]: how often each position is masked, over more images
                             ///< than these
};

void write_snapshot(const std::filesystem::path& file, const Snapshot& snapshot);
/// Throws mlo::Error naming the file when it is damaged or no snapshot.
Snapshot read_snapshot(const std::filesystem::path& file);

}  // namespace mlomae
