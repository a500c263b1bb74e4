// Figures of docs/mlomae.md about hypergradients, at the demo's size, on Fashion-MNIST.
#include "case.h"

#include "mlomae/levels/classify.h"
#include "mlomae/levels/reconstruct.h"
#include "mlomae/levels/validate.h"

#include <mlo/mlo.h>
#include <torch/types.h>

#include <cstdio>
#include <filesystem>

namespace bench {
namespace {

using namespace mlomae;

std::unique_ptr<mlo::Method> duals() {
  return mlo::implicit(mlo::reverse_over_forward_oracle(), mlo::identity_solver());
}

// The three levels, with sources of the images as they are.
struct Fashion {
  std::shared_ptr<const mlo::ImageSet> set;
  ModelOptions options = model_size("micro");

  Fashion() {
    options.image_size = 28, options.channels = 1, options.patch = 4;
    const std::filesystem::path folder = "/usr/share/datasets/fashion-mnist";
    set = mlo::idx_images(folder / "train-images-idx3-ubyte.gz",
                          folder / "train-labels-idx1-ubyte.gz");
  }

  mlo::Data source(uint64_t seed, int64_t batch) const {
    mlo::Augmentation plain;
    plain.size = 28, plain.mean = {0.286}, plain.deviation = {0.353};
    return mlo::image_source(set, {}, {.batch_size = batch, .augmentation = plain, .seed = seed});
  }

  struct How {
    MaskingOptions masking;
    mlo::LevelOptions pretrain, head, masker;
    int64_t batch = 64;
    bool zero_output = false;
  };
  std::unique_ptr<mlo::Engine> engine(How how) const {
    torch::manual_seed(1);
    MaskedAutoencoder mae(options);
    Masker masker(MaskerOptions{
        .patches = options.patches(), .dim = options.dim, .zero_output = how.zero_output});
    Head head(HeadOptions{.dim = options.dim});
    auto e = std::make_unique<mlo::Engine>(mlo::EngineOptions{.seed = 1});
    how.pretrain.data = source(1, how.batch), how.head.data = source(2, how.batch),
    how.masker.data = source(3, how.batch);
    e->add("pretrain", Reconstruct(mae, masker, {.masking = how.masking}), std::move(how.pretrain));
    e->add("head", Classify(head, mae), std::move(how.head));
    e->add("masker", Validate(masker, mae, head), std::move(how.masker));
    return e;
  }
};

struct Row {
  const char* name;
  std::function<std::unique_ptr<mlo::Method>()> pretrain, head;
};

std::vector<Row> rows() {
  using Scale = mlo::IdentityOptions::Scale;
  const auto exact = [] { return mlo::one_step(); };
  const auto scaled = [](Scale scale) {
    return [scale] { return mlo::one_step({}, {.scale = scale}); };
  };
  const auto after = [] {
    return mlo::implicit(mlo::exact_oracle(), mlo::identity_solver(),
                         mlo::EvaluationPoint::after_step);
  };
  const auto darts = [] { return mlo::darts(); };
  const auto betty = [] { return mlo::betty(); };
  return {
      {"exact", exact, exact},
      {"reverse over forward", duals, exact},
      {"differences (darts)", darts, darts},
      {"Betty's differences (scale one, after the step)", betty, betty},
      {"exact, scale one", scaled(Scale::one), scaled(Scale::one)},
      {"exact, scale learning rate", scaled(Scale::learning_rate), scaled(Scale::learning_rate)},
      {"exact, after the step", after, after}};
}

}  // namespace

void print_accuracy() {
  const Fashion fashion;
  const auto adamw = [] { return mlo::adamw({.lr = 1e-3, .beta2 = 0.95}); };
  for (const auto input : {MaskInput::held, MaskInput::coupled})
    for (const int64_t steps : {2, 100}) {
      mlo::Tensors exact;
      for (const Row& row : rows()) {
        const auto e =
            fashion.engine({.masking = {.ratio = 0.75, .selects = Selects::rank, .input = input},
                            .pretrain = {.optimizer = adamw(), .best_response = row.pretrain()},
                            .head = {.optimizer = adamw(), .best_response = row.head()},
                            .masker = {.optimizer = mlo::sgd({.lr = 0.0})}});
        for (int64_t i = 0; i < steps; ++i) e->step();
        const mlo::Tensors g = e->hypergradient("masker");
        if (exact.empty()) exact = g;
        std::printf("%s, after %lld steps: %s: cosine %.4f, norm %.3g\n",
                    input == MaskInput::held ? "held" : "coupled", static_cast<long long>(steps),
                    row.name, cosine(g, exact), std::sqrt(dot(g, g) / dot(exact, exact)));
        std::fflush(stdout);  // it takes minutes
      }
    }
}

}  // namespace bench
