#include "precompiled.h"

#include "tensors/gradients.h"

namespace mlo {

Tensors gradients(const Tensors& outputs, const Tensors& inputs, const Tensors& directions,
                  bool retain_graph, bool create_graph) {
  if (inputs.empty()) return {};
  const auto frozen = [](const at::Tensor& t) { return !t.requires_grad(); };
  if (std::none_of(inputs.begin(), inputs.end(), frozen))
    return torch::autograd::grad(outputs, inputs, directions, retain_graph, create_graph,
                                 /*allow_unused=*/true);
  Tensors wanted, result(inputs.size());
  std::copy_if(inputs.begin(), inputs.end(), std::back_inserter(wanted), std::not_fn(frozen));
  if (wanted.empty()) return result;
  wanted = torch::autograd::grad(outputs, wanted, directions, retain_graph, create_graph,
                                 /*allow_unused=*/true);
  auto next = wanted.begin();
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (!frozen(inputs[i])) result[i] = std::move(*next++);
  return result;
}

}  // namespace mlo
