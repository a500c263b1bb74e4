#pragma once

#include "mlo/data/augment.h"
#include "mlo/data/images.h"
#include "mlo/data/source.h"

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

struct ImageSourceOptions {
  int64_t batch_size = 128;
  bool shuffle = true;
  bool drop_last = true;
  Augmentation augmentation = {};
  int64_t workers = 1;   ///< threads that prepare batches ahead; 0: prepared when asked for. The
                         ///< batches are the same.
  int64_t prefetch = 2;  ///< batches ahead of the one handed out
  at::Device device = at::kCPU;  ///< CUDA: through pinned memory, copied asynchronously
  uint64_t seed = 0;             ///< 0: the stream of the engine and level

  void validate() const;
};

/// Batches of {float32 [B, C, S, S], int64 [B] labels} from the given rows of a set (all of them,
/// if none are given). What an image looks like in an epoch depends on (seed, epoch, row) only:
/// neither on workers nor on where a run was resumed.
std::unique_ptr<BatchSource> image_source(std::shared_ptr<const ImageSet> images,
                                          std::vector<int64_t> rows, ImageSourceOptions options);

/// Rows [begin, end) of `rows` as one batch, for evaluation: in order, from stream 0.
Batch image_batch(const ImageSet& images, const std::vector<int64_t>& rows, int64_t begin,
                  int64_t end, const Augmentation& augmentation);

}  // namespace mlo
#pragma GCC visibility pop
