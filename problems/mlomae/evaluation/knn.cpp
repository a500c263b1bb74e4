#include "mlomae/evaluation/knn.h"

#include <torch/nn/functional/normalization.h>
#include <torch/types.h>

namespace mlomae {

double knn_accuracy(const at::Tensor& features, const at::Tensor& labels,
                    const at::Tensor& test_features, const at::Tensor& test_labels, int64_t classes,
                    const KnnOptions& options) {
  const at::NoGradGuard no_grad;
  const at::Tensor known = torch::nn::functional::normalize(features).t().contiguous(),
                   asked = torch::nn::functional::normalize(test_features);
  const int64_t k = std::min(options.neighbours, features.size(0));
  int64_t right = 0;
  constexpr int64_t kBlock = 1000;  // rows at a time: the similarities of all at once would not fit
  for (int64_t begin = 0; begin < asked.size(0); begin += kBlock) {
    const int64_t count = std::min(kBlock, asked.size(0) - begin);
    const auto [similarity, index] = asked.narrow(0, begin, count).matmul(known).topk(k, 1);
    // All votes by the same factor, so that the nearest one's is 1 and none overflows.
    const at::Tensor votes = torch::zeros({count, classes}, features.options());
    votes.scatter_add_(1, labels.index_select(0, index.flatten()).view({count, k}),
                       ((similarity - similarity.narrow(1, 0, 1)) / options.temperature).exp());
    right += votes.argmax(1).eq(test_labels.narrow(0, begin, count)).sum().item<int64_t>();
  }
  return static_cast<double>(right) / static_cast<double>(asked.size(0));
}

}  // namespace mlomae
