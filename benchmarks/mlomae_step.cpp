// One outer step of MLO-MAE, by how its passes share and what they compute in, beside plain MAE's
// step and the machine's matrix product.
#include "case.h"

#include "mlomae/levels/classify.h"
#include "mlomae/levels/reconstruct.h"
#include "mlomae/levels/validate.h"

#include <mlo/mlo.h>
#include <torch/types.h>
#include <torch/utils.h>

namespace bench {
namespace {

using namespace mlomae;

// Floating point operations of a block on L tokens of an image, forward; in the last block of
// features() one token goes on.
double block(double tokens, double dim, bool class_only = false) {
  const double rows = class_only ? 1.0 : tokens;
  return (6.0 * tokens + 18.0 * rows) * dim * dim + 4.0 * rows * tokens * dim;
}

struct Work {
  double encoder = 0.0, reconstruction = 0.0, masker = 0.0;  // forward, of a batch
  explicit Work(const MlomaeShape& s) {
    const double n = static_cast<double>((s.image / s.patch) * (s.image / s.patch)),
                 dim = static_cast<double>(s.dim), ddim = static_cast<double>(s.decoder_dim);
    const double values = static_cast<double>(3 * s.patch * s.patch),
                 visible = 1.0 + std::floor(n / 4.0);
    const auto b = static_cast<double>(s.batch);
    const double embed = 2.0 * n * values * dim;
    encoder = b * (embed + static_cast<double>(s.depth - 1) * block(n + 1, dim) +
                   block(n + 1, dim, true));
    reconstruction =
        b *
        (embed + static_cast<double>(s.depth) * block(visible, dim) + 2.0 * visible * dim * ddim +
         static_cast<double>(s.decoder_depth) * block(n + 1, ddim) + 2.0 * n * ddim * values);
    masker = b * 2.0 * (n * dim * 512.0 + 512.0 * n);
  }
};

struct Networks {
  MaskedAutoencoder mae = nullptr;
  Masker masker = nullptr;
  Head head = nullptr;
  mlo::Batch batch;
  Networks(const MlomaeShape& s, bool checkpointed, int64_t micro_batches) {
    torch::manual_seed(5);
    ModelOptions o;
    o.image_size = s.image, o.patch = s.patch, o.dim = s.dim, o.depth = s.depth, o.heads = s.heads;
    o.decoder_dim = s.decoder_dim, o.decoder_depth = s.decoder_depth,
    o.decoder_heads = s.decoder_heads;
    o.checkpoint_activations = checkpointed;
    mae = MaskedAutoencoder(o);
    masker = Masker(MaskerOptions{.patches = o.patches(), .dim = o.dim, .zero_output = true});
    head = Head(HeadOptions{.dim = o.dim});
    const int64_t images = s.batch / micro_batches;
    batch =
        mlo::Batch{torch::randn({images, 3, s.image, s.image}), torch::randint(0, 10, {images})};
  }
};

struct Way {
  const char* name;
  bool shared = true, checkpointed = false;
  mlo::Precision precision = mlo::Precision::float32;
  bool differences = false;
  int64_t micro_batches = 1;
};

mlo::LevelOptions level(const Networks& n, const Way& way, std::unique_ptr<mlo::Method> method) {
  mlo::LevelOptions options;
  options.optimizer = mlo::adamw({.lr = 1e-4, .beta2 = 0.95, .eps = 1e-12});
  options.data = n.batch;
  options.best_response = std::move(method);
  options.precision = way.precision;
  options.accumulate = way.micro_batches;
  return options;
}

Contestant outer_step(const MlomaeShape& s, const Way& way) {
  Networks n(s, way.checkpointed, way.micro_batches);
  auto engine = std::make_shared<mlo::Engine>();
  const ReconstructOptions reconstruct{.masking = {.ratio = 0.75, .selects = Selects::sampled}};
  auto pretrain = level(
      n, way,
      way.differences ? mlo::darts()
                      : mlo::implicit(mlo::reverse_over_forward_oracle(), mlo::identity_solver()));
  pretrain.unroll = s.unroll;
  engine->add("pretrain", Reconstruct(n.mae, n.masker, reconstruct), std::move(pretrain));
  engine->add("head", Classify(n.head, n.mae),
              level(n, way, mlo::one_step({.keep_graph = way.shared})));
  engine->add("masker", Validate(n.masker, n.mae, n.head), level(n, way, nullptr));
  Contestant c = engine_contestant(way.name, engine);
  const Work w(s);
  const double head_forwards = way.shared ? 1.0 : 2.0, again = way.checkpointed ? 1.0 : 0.0;
  c.flop = static_cast<double>(s.unroll) * (3.0 + again) * w.reconstruction +
           2.0 * w.reconstruction + (head_forwards + 2.0 + again + 3.0 + again) * w.encoder +
           static_cast<double>(s.unroll + 3) * w.masker;
  return c;
}

Contestant plain_step(const MlomaeShape& s) {
  Networks n(s, false, 1);
  auto engine = std::make_shared<mlo::Engine>();
  engine->add(
      "pretrain",
      Reconstruct(n.mae, nullptr, {.masking = {.ratio = 0.75, .selects = Selects::uniform}}),
      level(n, {"mae"}, nullptr));
  Contestant c = engine_contestant("mae", engine);
  c.flop = 3.0 * Work(s).reconstruction;
  return c;
}

}  // namespace

Case mlomae_case(const MlomaeShape& s) {
  return {
      s.small ? "mlomae-step-small" : "mlomae-step",
      "one outer step of MLO-MAE (2 reconstruction, 1 head, 1 masking step), plain MAE's step, and "
      "a matrix product of 1024 "
      "cubed",
      1, [s](const std::string& only) {
        std::vector<Contestant> all;
        const auto wanted = [&](const std::string& name) { return only.empty() || only == name; };
        if (wanted("mae")) all.push_back(plain_step(s));
        using mlo::Precision;
        for (const Way& way :
             {Way{"mlo-mae"}, Way{.name = "mlo-mae differences", .differences = true},
              Way{.name = "mlo-mae not shared", .shared = false},
              Way{.name = "mlo-mae checkpointed", .shared = false, .checkpointed = true},
              Way{.name = "mlo-mae differences, not shared", .shared = false, .differences = true},
              Way{.name = "mlo-mae differences, checkpointed",
              .shared = false,
              .checkpointed = true,
              .differences = true},
              Way{.name = "mlo-mae bfloat16 checkpointed",
              .shared = false,
              .checkpointed = true,
              .precision = Precision::bfloat16},
              Way{.name = "mlo-mae in 4 micro-batches", .shared = false, .micro_batches = 4},
              Way{.name = "mlo-mae differences, in 4 micro-batches",
              .shared = false,
              .differences = true,
              .micro_batches = 4},
              Way{.name = "mlo-mae bfloat16 in 4 micro-batches",
              .shared = false,
              .precision = Precision::bfloat16,
              .micro_batches = 4},
              Way{.name = "mlo-mae bfloat16", .precision = Precision::bfloat16},
              Way{.name = "mlo-mae bfloat16 not shared",
              .shared = false,
              .precision = Precision::bfloat16}})
          if (wanted(way.name)) all.push_back(outer_step(s, way));
        const at::Tensor a = torch::randn({1024, 1024}), b = torch::randn({1024, 1024});
        if (wanted("matrix product"))
          all.push_back({"matrix product",
                         [a, b](int64_t steps) {
                           for (int64_t i = 0; i < steps; ++i) a.mm(b);
                         },
                         nullptr, 2.0 * 1024 * 1024 * 1024});
        return all;
      }};
}

}  // namespace bench
