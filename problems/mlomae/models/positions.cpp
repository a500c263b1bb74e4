#include "mlomae/models/positions.h"

#include <ATen/ATen.h>
#include <torch/types.h>

namespace mlomae {

at::Tensor sine_cosine_positions(int64_t dim, int64_t side) {
  const int64_t quarter = dim / 4;
  const at::Tensor frequency =
      at::pow(10000.0, -torch::arange(quarter, at::kDouble) / static_cast<double>(quarter));
  const at::Tensor angle = at::outer(torch::arange(side, at::kDouble), frequency);
  const at::Tensor one = at::cat({angle.sin(), angle.cos()}, 1);  // [side, dim/2]
  const at::Tensor column = one.unsqueeze(0).expand({side, side, dim / 2}),
                   row = one.unsqueeze(1).expand({side, side, dim / 2});
  const at::Tensor patches = at::cat({column, row}, 2).reshape({side * side, dim});
  return at::cat({torch::zeros({1, dim}, at::kDouble), patches}, 0).unsqueeze(0).to(at::kFloat);
}

}  // namespace mlomae
