// A weight for every training image, learned. Some labels of Fashion-MNIST are flipped; level
// "train" trains a network on the weighted losses of the noisy images, level "weights" trains the
// weights on the loss of that network on a small clean set. Beside it, with the same steps and
// seed: no weights; the clean set alone; no label flipped. Writes weights.png and log.jsonl.
#include <mlo/mlo.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>

#include <cstdio>
#include <filesystem>

namespace {

struct Settings {
  std::filesystem::path data = "/usr/share/datasets/fashion-mnist", out = "out/reweight";
  int64_t images = 10000, held_out = 1000, steps = 1000, batch = 500, hidden = 256, seed = 1;
  double flipped = 0.4, lr = 0.1, weights_lr = 0.05;
  bool is_short = false;
};

struct Images {
  at::Tensor pixels, labels;  // [n, 784] in 0…1; [n]
  Images rows(const at::Tensor& which) const {
    return {pixels.index_select(0, which), labels.index_select(0, which)};
  }
};

Images read(const std::filesystem::path& folder, const std::string& part) {
  const auto file = [&](const std::string& rest) { return folder / (part + rest); };
  return {mlo::read_idx(file("-images-idx3-ubyte.gz")).flatten(1).to(at::kFloat) / 255.0,
          mlo::read_idx(file("-labels-idx1-ubyte.gz")).to(at::kLong)};
}

struct Data {
  Images train, held_out, test;
  at::Tensor truth;    // of train: the labels before some were flipped
  at::Tensor flipped;  // of train: which were

  explicit Data(const Settings& settings) {
    torch::manual_seed(static_cast<uint64_t>(settings.seed));
    const Images all = read(settings.data, "train");
    const at::Tensor order = torch::randperm(all.labels.size(0));
    train = all.rows(order.narrow(0, 0, settings.images));
    held_out = all.rows(order.narrow(0, settings.images, settings.held_out));
    test = read(settings.data, "t10k");
    truth = train.labels;
    flipped = torch::rand({settings.images}) < settings.flipped;
    const at::Tensor shift = torch::randint(1, 10, {settings.images}, at::kLong);
    train.labels = at::where(flipped, (truth + shift).remainder(10), truth);
  }
};

torch::nn::Sequential network(const Settings& settings) {
  torch::manual_seed(static_cast<uint64_t>(settings.seed) + 1);
  return torch::nn::Sequential(torch::nn::Linear(784, settings.hidden), torch::nn::ReLU(),
                               torch::nn::Linear(settings.hidden, settings.hidden),
                               torch::nn::ReLU(), torch::nn::Linear(settings.hidden, 10));
}

double accuracy(torch::nn::Sequential& net, const Images& images) {
  const at::NoGradGuard no_grad;
  const at::Tensor right = net->forward(images.pixels).argmax(1).eq(images.labels);
  return right.to(at::kDouble).mean().item<double>();
}

// [problems]
struct Train final : mlo::Problem {
  Train(torch::nn::Sequential net, at::Tensor scores, const Images& held_out)
      : Problem(mlo::trains(net)), net(net), scores(scores), held_out(held_out) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {  // pixels, labels, positions
    const at::Tensor losses =
        at::cross_entropy_loss(net->forward(batch[0]), batch[1], {}, at::Reduction::None);
    if (!scores.defined()) return losses.mean();
    const at::Tensor weights = scores.index_select(0, batch[2]).sigmoid();
    return weights.dot(losses) / weights.sum();
  }
  std::map<std::string, double> validate() override {
    return {{"held_out_accuracy", accuracy(net, held_out)}};
  }
  torch::nn::Sequential net;
  at::Tensor scores;  // one a training image; undefined: all weights are one
  Images held_out;
};

struct Weights final : mlo::Problem {
  Weights(at::Tensor scores, torch::nn::Sequential net) : Problem(mlo::trains(scores)), net(net) {}
  mlo::Evaluation loss(const mlo::Batch& batch) override {
    return at::cross_entropy_loss(net->forward(batch[0]), batch[1]);
  }
  torch::nn::Sequential net;
};
// [problems]

// Trains a fresh network on `train`, alone or with weights that it learns and returns.
at::Tensor run(const Settings& settings, const std::string& name, const Images& train,
               const Data& data, bool learn_weights = false) {
  const std::filesystem::path best = settings.out / "best.checkpoint";
  const int64_t rows = train.labels.size(0);
  torch::nn::Sequential net = network(settings);
  const at::Tensor scores = learn_weights ? torch::zeros({rows}).requires_grad_() : at::Tensor();

  // [engine]
  mlo::Engine engine({.steps = settings.steps,
                      .validate_every = 50,
                      .seed = static_cast<uint64_t>(settings.seed),
                      .early_stopping = {.metric = "train.held_out_accuracy",
                                         .patience = settings.steps,  // never stops, marks the best
                                         .mode = mlo::EarlyStopping::Mode::max}});
  engine.add("train", Train(net, scores, data.held_out),
             {.optimizer = mlo::sgd({.lr = settings.lr, .momentum = 0.9}),
              .data = mlo::tensor_source({train.pixels, train.labels, torch::arange(rows)},
                                         {.batch_size = std::min(settings.batch, rows)}),
              .best_response = mlo::one_step(),
              .schedule = mlo::cosine({.steps = settings.steps})});
  if (learn_weights)
    engine.add(
        "weights", Weights(scores, net),
        {.optimizer = mlo::adam({.lr = settings.weights_lr, .eps = 1e-12}),
         .data = mlo::tensor_source({data.held_out.pixels, data.held_out.labels},
                                    {.batch_size = std::min(settings.batch, settings.held_out)}),
         .schedule = mlo::cosine({.steps = settings.steps})});
  engine.add(mlo::progress_bar(stderr));
  engine.add(mlo::json_lines(settings.out / "log.jsonl", 10));
  engine.add(mlo::best_checkpoint(best));
  // [engine]

  engine.run();
  const double last = accuracy(net, data.test);
  const at::Tensor weights = learn_weights ? scores.detach().sigmoid() : at::Tensor();
  engine.load(best);
  std::printf("%-31s %10.1f %% %24.1f %%\n", name.c_str(), 100 * last,
              100 * accuracy(net, data.test));
  return weights;
}

// The images with the lowest weights, then those with the highest: framed in red where the label
// was flipped, in blue where it is right.
at::Tensor picture(const at::Tensor& weights, const Data& data) {
  constexpr int64_t kRows = 4, kColumns = 20, kSide = 34;
  const at::Tensor ink = torch::tensor({{46, 110, 180}, {214, 72, 52}}, at::kByte);
  const auto grid = [&](const at::Tensor& order) {
    const at::Tensor which = order.narrow(0, 0, kRows * kColumns);
    const at::Tensor frames = ink.index_select(0, data.flipped.index_select(0, which).to(at::kInt));
    const at::Tensor pixels = data.train.pixels.index_select(0, which) * 255;
    at::Tensor tiles = at::full({kRows * kColumns, 3, kSide, kSide}, 255, at::kByte);
    tiles.narrow(2, 1, 32).narrow(3, 1, 32).copy_(frames.view({-1, 3, 1, 1}));
    tiles.narrow(2, 3, 28).narrow(3, 3, 28).copy_(pixels.round().view({-1, 1, 28, 28}));
    tiles = tiles.view({kRows, kColumns, 3, kSide, kSide});
    return tiles.permute({2, 0, 3, 1, 4}).flatten(3).flatten(1, 2);
  };
  const at::Tensor order = weights.argsort(),
                   gap = at::full({3, 20, kColumns * kSide}, 255, at::kByte);
  return at::cat({grid(order), gap, grid(order.flip(0))}, 1);
}

void compare(const Settings& settings) {
  const Data data(settings);
  std::filesystem::create_directories(settings.out);
  std::filesystem::remove(settings.out / "log.jsonl");
  std::printf("%-31s %12s %26s\n", "trained on", "test accuracy", "at best held-out accuracy");
  run(settings, "noisy labels", data.train, data);
  const at::Tensor weights = run(settings, "noisy labels, learned weights", data.train, data, true);
  run(settings, "only the held-out images", data.held_out, data);
  run(settings, "no label flipped (the ceiling)", {data.train.pixels, data.truth}, data);
  const at::Tensor right = weights.masked_select(data.flipped.logical_not()),
                   wrong = weights.masked_select(data.flipped);
  // The area under the ROC curve: in how many of all pairs the right label outweighs the wrong one.
  const double auc = right.unsqueeze(1).gt(wrong).to(at::kDouble).mean().item<double>();
  mlo::write_png(settings.out / "weights.png", picture(weights, data));
  std::printf("\nmean weight: label right %.3f, flipped %.3f; area under the curve %.3f\n",
              right.mean().item<double>(), wrong.mean().item<double>(), auc);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Learns a weight for every image of Fashion-MNIST, some labels flipped.");
  app.option_defaults()->always_capture_default();
  app.add_option("--data", settings.data, "folder of the four IDX .gz files");
  app.add_option("--out", settings.out, "folder for weights.png and log.jsonl");
  app.add_option("--flipped", settings.flipped, "fraction of wrong labels")->check(CLI::Range(0.9));
  app.add_option("--steps", settings.steps, "steps of each run")->check(CLI::Range(50, 100000));
  app.add_option("--seed", settings.seed, "of data and networks")->check(CLI::NonNegativeNumber);
  app.add_flag("--short", settings.is_short, "a run of seconds, for a test");
  CLI11_PARSE(app, argc, argv);
  if (settings.is_short) settings.images = 1000, settings.steps = 60;
  if (!std::filesystem::exists(settings.data / "train-images-idx3-ubyte.gz")) {
    std::fprintf(stderr, "no Fashion-MNIST in %s; apt-get install dataset-fashion-mnist\n",
                 settings.data.c_str());
    return settings.is_short ? 77 : 1;
  }
  try {
    compare(settings);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "reweight: %s\n", error.what());
    return 1;
  }
}
