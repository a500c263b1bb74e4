#include "mlomae/evaluation/features.h"

#include "mlomae/message.h"
#include "mlomae/models/modes.h"

#include <ATen/ATen.h>
#include <mlo/data/image_source.h>
#include <torch/types.h>

#include <algorithm>
#include <numeric>

namespace mlomae {

Features features(MaskedAutoencoder mae, const mlo::ImageSet& images, std::vector<int64_t> rows,
                  const mlo::Augmentation& plain, int64_t batch, const Progress& progress) {
  const at::NoGradGuard no_grad;
  const KeepModes modes(mae.ptr());
  mae->eval();
  if (rows.empty()) {
    rows.resize(static_cast<std::size_t>(images.size()));
    std::iota(rows.begin(), rows.end(), int64_t{0});
  }
  const auto count = static_cast<int64_t>(rows.size());
  const at::Device device = mae->parameters().front().device();
  std::vector<at::Tensor> class_tokens, means, labels;
  for (int64_t begin = 0; begin < count; begin += batch) {
    const mlo::Batch part =
        mlo::image_batch(images, rows, begin, std::min(begin + batch, count), plain);
    const at::Tensor tokens = mae->tokens(part[0].to(device)).cpu();
    if (!tokens.isfinite().all().item<bool>())
      refuse<mlo::NonFiniteError>(
          "the encoder's features are not finite: its weights have diverged, or are damaged; train "
          "it again with a lower learning rate, or use an earlier checkpoint");
    class_tokens.push_back(tokens.select(1, 0).clone());
    means.push_back(tokens.narrow(1, 1, tokens.size(1) - 1).mean(1));
    labels.push_back(part[1]);
    if (progress) progress(std::min(begin + batch, count), count);
  }
  return {at::cat(class_tokens), at::cat(means), at::cat(labels)};
}

}  // namespace mlomae
