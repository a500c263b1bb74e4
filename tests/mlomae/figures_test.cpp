// Figures of docs/mlomae.md, printed by name only: test_mlomae_proof "[.table]" and "[.signal]". At
// the demo's size, on Fashion-MNIST.
#include "support.h"

#include <mlo/data/image_source.h>

#include <array>
#include <sstream>

#include "catch.h"

using namespace mlomae;

namespace {

std::unique_ptr<mlo::Method> duals() {
  return mlo::implicit(mlo::reverse_over_forward_oracle(), mlo::identity_solver());
}

/// The three levels on Fashion-MNIST, with sources of the images as they are.
struct Fashion {
  const std::filesystem::path folder = "/usr/share/datasets/fashion-mnist";
  std::shared_ptr<const mlo::ImageSet> set;
  ModelOptions options = model_size("micro");

  Fashion() {
    options.image_size = 28, options.channels = 1, options.patch = 4;
    if (std::filesystem::exists(folder / "train-images-idx3-ubyte.gz"))
      set = mlo::idx_images(folder / "train-images-idx3-ubyte.gz",
                            folder / "train-labels-idx1-ubyte.gz");
    else
      WARN("no Fashion-MNIST here (Debian's dataset-fashion-mnist): no figures");
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
  };
  std::unique_ptr<mlo::Engine> engine(MaskedAutoencoder mae, Masker masker, Head head,
                                      How how) const {
    auto e = std::make_unique<mlo::Engine>(mlo::EngineOptions{.seed = 1});
    how.pretrain.data = source(1, how.batch), how.head.data = source(2, how.batch),
    how.masker.data = source(3, how.batch);
    e->add("pretrain", Reconstruct(mae, masker, {.masking = how.masking}), std::move(how.pretrain));
    e->add("head", Classify(head, mae), std::move(how.head));
    e->add("masker", Validate(masker, mae, head), std::move(how.masker));
    return e;
  }
};

double norm(const mlo::Tensors& tensors) {
  double sum = 0.0;
  for (const at::Tensor& t : tensors) sum += t.to(at::kDouble).square().sum().item<double>();
  return std::sqrt(sum);
}

}  // namespace

// How far methods are from the exact derivative of the steps taken, at the start and after some
// steps.
TEST_CASE("How far approximations are from the exact hypergradient", "[.table]") {
  const Fashion fashion;
  if (!fashion.set) return;
  struct Row {
    const char* name;
    std::function<std::unique_ptr<mlo::Method>()> pretrain, head;
  };
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
  const Row rows[] = {
      {"reverse over forward", duals, exact},
      {"differences (darts)", darts, darts},
      {"Betty's differences (scale one, after the step)", betty, betty},
      {"exact, scale one", scaled(Scale::one), scaled(Scale::one)},
      {"exact, scale learning rate", scaled(Scale::learning_rate), scaled(Scale::learning_rate)},
      {"exact, after the step", after, after}};
  std::ostringstream table;
  for (const auto input : {MaskInput::held, MaskInput::coupled}) {
    for (const int64_t steps : {2, 100}) {
      const auto hypergradient = [&](const Row& row) {
        torch::manual_seed(1);
        Networks n(fashion.options, 512, 10, 0.1, at::kFloat);
        const auto adamw = [] { return mlo::adamw({.lr = 1e-3, .beta2 = 0.95}); };
        const auto e = fashion.engine(
            n.mae, n.masker, n.head,
            {.masking = {.ratio = 0.75, .selection = Selection::rank, .input = input},
             .pretrain = {.optimizer = adamw(), .best_response = row.pretrain()},
             .head = {.optimizer = adamw(), .best_response = row.head()},
             .masker = {.optimizer = mlo::sgd({.lr = 0.0})}});
        for (int64_t i = 0; i < steps; ++i) e->step();
        return e->hypergradient("masker");
      };
      const mlo::Tensors expected = hypergradient({"", exact, exact});
      for (const Row& row : rows) {
        const mlo::Tensors g = hypergradient(row);
        table << (input == MaskInput::held ? "held" : "coupled") << ", after " << steps
              << " steps: " << row.name << ": cosine " << cosine(g, expected) << ", norm "
              << norm(g) / norm(expected) << "\n";
      }
    }
  }
  WARN(table.str());
}

// How much of a hypergradient is signal: the mean cosine between those of successive batches while
// T stands still, under the settings of `micro`, by the head's learning rate; of all of T, and of
// the bias of T's output, which is what a position gets whatever the image.
TEST_CASE("How much of a hypergradient is signal", "[.signal]") {
  const Fashion fashion;
  if (!fashion.set) return;
  std::ostringstream figures;
  for (const double head_rate : {1e-3, 1e-2}) {
    torch::manual_seed(1);
    const ModelOptions& o = fashion.options;
    MaskedAutoencoder mae(o);
    Masker masker(MaskerOptions{.patches = o.patches(), .dim = o.dim, .zero_output = true});
    Head head(HeadOptions{.dim = o.dim});
    const auto adamw = [](double rate, double decay) {
      return mlo::adamw({.lr = rate, .beta2 = 0.95, .weight_decay = decay, .decay_vectors = false});
    };
    const auto e = fashion.engine(
        mae, masker, head,
        {.masking = {.selection = Selection::sampled},
         .pretrain = {.optimizer = adamw(1e-3, 0.05), .unroll = 2, .best_response = duals()},
         .head = {.optimizer = adamw(head_rate, 0.0), .best_response = mlo::one_step()},
         .masker = {.optimizer = mlo::adamw({.lr = 1e-5, .beta2 = 0.95, .eps = 1e-12})},
         .batch = 128});
    mlo::Tensors earlier;
    for (const int64_t steps : {20, 100, 200}) {
      while (e->steps_taken() < steps) e->step();
      constexpr std::size_t kBatches = 8;
      std::vector<mlo::Tensors> all;
      for (std::size_t i = 0; i < kBatches; ++i) all.push_back(e->hypergradient("masker"));
      double whole = 0.0, bias = 0.0;
      mlo::Tensors mean = all.back();
      for (std::size_t i = 0; i < kBatches; ++i) {
        for (std::size_t j = 0; j < i; ++j) {
          whole += cosine(all[i], all[j]) / (kBatches * (kBatches - 1) / 2);
          bias += cosine({all[i].back()}, {all[j].back()}) / (kBatches * (kBatches - 1) / 2);
        }
        if (i + 1 < kBatches)
          for (std::size_t k = 0; k < mean.size(); ++k) mean[k] = mean[k] + all[i][k];
      }
      figures << "head at " << head_rate << ", after " << steps << " steps: mean cosine of "
              << kBatches * (kBatches - 1) / 2 << " pairs " << whole
              << ", of the output's bias alone " << bias;
      if (!earlier.empty()) figures << "; of the mean to the one before " << cosine(mean, earlier);
      figures << "\n";
      earlier = mean;
    }
  }
  WARN(figures.str());
}
