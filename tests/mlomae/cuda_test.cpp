// The three levels on a GPU: the same losses and hypergradient as on the CPU, images through pinned
// memory, both precisions.
#include <mlo/data/images.h>

#include <torch/cuda.h>
#include "support.h"

#include <iostream>

#include "catch.h"

using namespace mlomae;

namespace {

struct Outcome {
  std::vector<double> losses;
  mlo::Tensors hypergradient;
};

Outcome run(at::Device device, mlo::Precision precision) {
  ModelOptions o;
  o.image_size = 16, o.patch = 4, o.dim = 32, o.depth = 2, o.heads = 2, o.decoder_dim = 16,
  o.decoder_depth = 1, o.decoder_heads = 2;
  torch::manual_seed(1);
  Networks n(o, 32, 3, 0.0, at::kFloat);
  n.mae->to(device), n.masker->to(device), n.head->to(device);
  torch::manual_seed(2);
  const auto set = mlo::tensor_images(torch::randint(0, 256, {64, 3, 16, 16}, at::kByte),
                                      torch::arange(64).remainder(3));
  mlo::Augmentation plain;
  plain.size = 16;
  const auto source = [&](uint64_t seed) {
    return mlo::image_source(
        set, {}, {.batch_size = 16, .augmentation = plain, .device = device, .seed = seed});
  };
  mlo::Engine e({.seed = 1});
  const ReconstructOptions reconstruct{.masking = {.selects = Selects::rank}};
  e.add("pretrain", Reconstruct(n.mae, n.masker, reconstruct),
        {.optimizer = mlo::adamw({.lr = 1e-3}),
         .data = source(1),
         .unroll = 2,
         .best_response = mlo::implicit(mlo::reverse_over_forward_oracle(), mlo::identity_solver()),
         .precision = precision});
  e.add("head", Classify(n.head, n.mae),
        {.optimizer = mlo::adamw({.lr = 1e-3}),
         .data = source(2),
         .best_response = mlo::one_step(),
         .precision = precision});
  e.add("masker", Validate(n.masker, n.mae, n.head),
        {.optimizer = mlo::adamw({.lr = 1e-5, .eps = 1e-12}),
         .data = source(3),
         .precision = precision});
  Outcome outcome;
  for (int i = 0; i < 3; ++i) e.step();
  for (const char* level : {"pretrain", "head", "masker"}) outcome.losses.push_back(e.loss(level));
  for (const at::Tensor& g : e.hypergradient("masker")) outcome.hypergradient.push_back(g.cpu());
  return outcome;
}

}  // namespace

TEST_CASE("MLO-MAE on a GPU computes what it computes on the CPU", "[mlomae][cuda]") {
  if (!torch::cuda::is_available()) {
    std::cout << "skipped: no CUDA device here\n";
    return;
  }
  const Outcome cpu = run(at::kCPU, mlo::Precision::float32),
                gpu = run(at::kCUDA, mlo::Precision::float32),
                half = run(at::kCUDA, mlo::Precision::bfloat16);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(gpu.losses[i] == Approx(cpu.losses[i]).epsilon(1e-3));
    CHECK(half.losses[i] == Approx(cpu.losses[i]).epsilon(2e-2));
  }
  CHECK(cosine(gpu.hypergradient, cpu.hypergradient) > 0.99);
  CHECK(cosine(half.hypergradient, cpu.hypergradient) > 0.8);
}
