#include "precompiled.h"

#include "hypergradient/product_inputs.h"
#include "libtorch_error.h"
#include "mlo/error.h"
#include "mlo/hypergradient/oracle.h"
#include "tensors/gradients.h"
#include "tensors/mean.h"
#include "text.h"

namespace mlo {
namespace {

/// g = ∇L with graph; one backward of g·v gives H v and all mixed products.
class ExactLinearization final : public Linearization {
 public:
  ExactLinearization(Probe& probe, const Tensors& targets)
      : probe_(probe), targets_(targets), graphs_(probe.record().draws.size()) {}

  Tensors product(const Tensors& v, Wrt wrt, bool last) override {
    const Tensors inputs = product_inputs(probe_, targets_, v, wrt);
    const bool retain = !last || probe_.record().shared;

    Mean mean(inputs.size(), graphs_.size());
    for (std::size_t m = 0; m < graphs_.size(); ++m) {
      Tensors& graph = graphs_[m];
      if (graph.empty()) graph = probe_.gradient_graph(m, targets_);
      Tensors outputs, directions;
      for (std::size_t i = 0; i < graph.size(); ++i) {
        if (!graph[i].defined() || !graph[i].requires_grad())
          continue;  // unused, or linear: no second derivative
        outputs.push_back(graph[i]);
        directions.push_back(
            v[i].scalar_type() == graph[i].scalar_type() ? v[i] : v[i].to(graph[i].scalar_type()));
      }
      if (outputs.empty() || inputs.empty()) continue;
      mean.add(backward(outputs, inputs, directions, retain));
      if (last) graph.clear();  // a single product holds one micro-batch's graph at a time
    }
    return mean.take();
  }

 private:
  Tensors backward(const Tensors& outputs, const Tensors& inputs, const Tensors& directions,
                   bool retain) const {
    try {
      probe_.count_backward();
      return gradients(outputs, inputs, directions, retain, /*create_graph=*/false);
    } catch (const std::exception& error) {
      if (!is_libtorch(error)) throw;
      std::throw_with_nested(UnsupportedError(message(
          "level {}: the exact oracle could not differentiate the loss a second time ({}). Use a "
          "finite-difference method for this level (mlo::darts()), or replace the operation by one "
          "that LibTorch can differentiate twice; if a loss writes buffers in place, set "
          "ExactOptions::keep_graph = false",
          quoted(probe_.level_name()), words_of(error))));
    }
  }

  Probe& probe_;
  const Tensors& targets_;
  std::vector<Tensors> graphs_;  // by micro-batch, from the first product to the last
};

class ExactOracle final : public Oracle {
 public:
  explicit ExactOracle(ExactOptions options) : options_(options) {}
  std::string name() const override { return "exact"; }
  Needs needs() const override { return {.kept_graph = options_.keep_graph, .second_order = true}; }
  std::unique_ptr<Linearization> linearize(Probe& probe, const Tensors& targets) const override {
    return std::make_unique<ExactLinearization>(probe, targets);
  }

 private:
  ExactOptions options_;
};

}  // namespace

std::unique_ptr<Oracle> exact_oracle(ExactOptions options) {
  return std::make_unique<ExactOracle>(options);
}

}  // namespace mlo
