// K layers of two levels, each reading both of the layer below; the bottom layer reads the top
// level, which reads the highest layer: 2^K paths from the top level back to itself. The sweep
// makes 2K visits.
#include "case.h"

#include <ATen/ATen.h>
#include <mlo/mlo.h>
#include <torch/utils.h>

namespace bench {
namespace {

constexpr int64_t kSize = 16;

struct Follow final : mlo::Problem {
  Follow(const at::Tensor& own, std::vector<at::Tensor> others)
      : Problem(mlo::trains(own)), theta(own), read(std::move(others)) {
    for (std::size_t i = 0; i < read.size(); ++i) mix.push_back(at::randn({kSize, kSize}) / 8);
  }
  mlo::Evaluation loss(const mlo::Batch&) override {
    at::Tensor target = mix[0].mv(read[0]);
    for (std::size_t i = 1; i < read.size(); ++i) target = target + mix[i].mv(read[i]);
    return 0.5 * (theta - target.tanh()).square().sum();
  }
  at::Tensor theta;
  std::vector<at::Tensor> read, mix;
};

Contestant by_engine(const std::string& method, int64_t layers,
                     std::unique_ptr<mlo::Method> (*make)()) {
  torch::manual_seed(7);
  const auto fresh = [] { return at::randn({kSize}).requires_grad_(); };
  auto engine = std::make_shared<mlo::Engine>();
  const at::Tensor top = fresh();
  std::vector<at::Tensor> below = {top};
  for (int64_t layer = 0; layer < layers; ++layer) {
    std::vector<at::Tensor> here = {fresh(), fresh()};
    for (int i = 0; i < 2; ++i)
      engine->add("layer" + std::to_string(layer) + (i == 0 ? "a" : "b"),
                  Follow(here[static_cast<std::size_t>(i)], below),
                  {.optimizer = mlo::sgd({.lr = 0.1}), .best_response = make()});
    below = std::move(here);
  }
  engine->add("top", Follow(top, below), {.optimizer = mlo::sgd({.lr = 0.01})});
  return engine_contestant(method, std::move(engine));
}

}  // namespace

Case paths_case(int64_t layers) {
  return {"paths-" + std::to_string(layers),
          std::to_string(1LL << layers) + " paths through " + std::to_string(2 * layers) +
              " levels of 16 numbers",
          20, [layers](const std::string&) {
            std::vector<Contestant> all;
            all.push_back(by_engine("darts", layers, [] { return mlo::darts(); }));
            all.push_back(by_engine("one_step", layers, [] { return mlo::one_step(); }));
            return all;
          }};
}

}  // namespace bench
