// A weight for every training image, learned. Some labels of Fashion-MNIST are flipped; level
// "train" trains a network on the weighted losses of the noisy images, level "weights" trains the
// weights on the loss of that network on a small clean set. Beside it, with the same steps and
// seed: no weights; the clean set alone; no label flipped. Writes weights.png, result.json and
// log.jsonl.
//
// usage: reweight [--out FOLDER] [--data FOLDER] [--resume] [--short] [--json] … (--help lists
// them)
#include "report.h"

#include <mlo/mlo.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>

namespace {

struct Settings {
  std::filesystem::path data = "/usr/share/datasets/fashion-mnist", out = "out/reweight";
  int64_t images = 10000, held_out = 1000, steps = 1000, batch = 500, hidden = 256, seed = 1;
  double flipped = 0.4, lr = 0.1, weights_lr = 0.05;
  int threads = 0;
  bool resume = false, is_short = false, json = false;
};

constexpr int64_t kClasses = 10;
constexpr const char* kNames[kClasses] = {"T-shirt", "Trouser", "Pullover", "Dress", "Coat",
                                          "Sandal",  "Shirt",   "Sneaker",  "Bag",   "Boot"};

struct NoData : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// [data]
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
    if (!std::filesystem::exists(settings.data / "train-images-idx3-ubyte.gz"))
      throw NoData("no Fashion-MNIST in " + settings.data.string() +
                   ". Cure: apt-get install dataset-fashion-mnist (Debian, Ubuntu), or --data "
                   "FOLDER with the four .gz files");
    torch::manual_seed(static_cast<uint64_t>(settings.seed));
    const Images all = read(settings.data, "train");
    const at::Tensor order = torch::randperm(all.labels.size(0));
    train = all.rows(order.narrow(0, 0, settings.images));
    held_out = all.rows(order.narrow(0, settings.images, settings.held_out));
    test = read(settings.data, "t10k");

    truth = train.labels;
    flipped = torch::rand({settings.images}) < settings.flipped;
    const at::Tensor other =
        (truth + torch::randint(1, kClasses, {settings.images}, at::kLong)).remainder(kClasses);
    train.labels = at::where(flipped, other, truth);
  }
};
// [data]

torch::nn::Sequential network(const Settings& settings) {
  torch::manual_seed(static_cast<uint64_t>(settings.seed) + 1);
  return torch::nn::Sequential(torch::nn::Linear(784, settings.hidden), torch::nn::ReLU(),
                               torch::nn::Linear(settings.hidden, settings.hidden),
                               torch::nn::ReLU(), torch::nn::Linear(settings.hidden, kClasses));
}

double accuracy(torch::nn::Sequential& net, const Images& images) {
  const at::NoGradGuard no_grad;
  return net->forward(images.pixels)
      .argmax(1)
      .eq(images.labels)
      .to(at::kDouble)
      .mean()
      .item<double>();
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

// A signal asks the engine that runs to stop; it saves and returns.
mlo::Engine* running = nullptr;
extern "C" void on_signal(int) {
  if (running) running->request_stop();
}

struct Outcome {
  double accuracy = 0.0,
         best_accuracy =
             0.0;      // on the test images: at the end, and where the held-out accuracy was best
  at::Tensor weights;  // the learned ones
  double seconds = 0.0;
  bool finished = false;
};

// Trains a fresh network on `train`, alone or with learned weights.
Outcome run(const Settings& settings, const std::string& name, const Images& train,
            const Data& data, bool learn_weights) {
  const std::filesystem::path checkpoint = settings.out / (name + ".checkpoint"),
                              best = settings.out / (name + ".best");
  const int64_t rows = train.labels.size(0);
  torch::nn::Sequential net = network(settings);
  at::Tensor scores;
  if (learn_weights) scores = torch::zeros({rows}).requires_grad_();

  // [engine]
  mlo::Engine engine({.steps = settings.steps,
                      .validate_every = 50,
                      .seed = static_cast<uint64_t>(settings.seed),
                      .early_stopping = {.metric = "train.held_out_accuracy",
                                         .patience = settings.steps,  // never stops, marks the best
                                         .mode = mlo::EarlyStopping::Mode::max},
                      .checkpoint = checkpoint,
                      .checkpoint_every = 250});
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
  if (settings.resume && std::filesystem::exists(checkpoint)) engine.load(checkpoint);
  // [engine]

  running = &engine;
  const mlo::RunSummary summary = engine.run();
  running = nullptr;

  Outcome outcome;
  outcome.seconds = summary.seconds;
  outcome.finished = summary.reason == mlo::RunSummary::Reason::steps;
  outcome.accuracy = accuracy(net, data.test);
  if (learn_weights) outcome.weights = scores.detach().sigmoid();
  if (std::filesystem::exists(best)) {
    engine.load(best);
    outcome.best_accuracy = accuracy(net, data.test);
  }
  return outcome;
}

// Area under the ROC curve of "a low weight means a flipped label": how often a clean image
// outweighs a flipped one.
double detection(const at::Tensor& weights, const at::Tensor& flipped) {
  const at::Tensor ranks = at::empty({weights.size(0)}, at::kDouble);
  ranks.index_copy_(0, weights.argsort(), torch::arange(1, weights.size(0) + 1, at::kDouble));
  const double clean = flipped.logical_not().sum().item<double>(),
               noisy = flipped.sum().item<double>();
  const double sum = ranks.masked_select(flipped.logical_not()).sum().item<double>();
  return (sum - clean * (clean + 1) / 2) / (clean * noisy);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app(
      "Learns a weight for every training image of Fashion-MNIST, some of whose labels are "
      "flipped.",
      "reweight");
  app.add_option("--data", settings.data, "folder of the four IDX .gz files")
      ->capture_default_str();
  app.add_option("--out", settings.out,
                 "folder for weights.png, result.json, log.jsonl and checkpoints")
      ->capture_default_str();
  app.add_option("--images", settings.images, "training images")
      ->check(CLI::Range(100, 50000))
      ->capture_default_str();
  app.add_option("--held-out", settings.held_out, "clean images for the upper loss")
      ->check(CLI::Range(50, 10000))
      ->capture_default_str();
  app.add_option("--flipped", settings.flipped, "fraction of the training labels that are flipped")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  app.add_option("--steps", settings.steps, "steps of the weights (and of the network)")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--batch", settings.batch, "images a step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--hidden", settings.hidden, "width of the network")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--lr", settings.lr, "learning rate of the network")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--weights-lr", settings.weights_lr, "learning rate of the weights")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seed", settings.seed, "of the data, the network and the runs")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--threads", settings.threads, "threads of LibTorch; 0: as many as it likes")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--resume", settings.resume, "go on from the checkpoints in the output folder");
  app.add_flag("--short", settings.is_short, "a run of seconds, for a test");
  app.add_flag("--json", settings.json, "print the result as one JSON object");
  CLI11_PARSE(app, argc, argv);
  if (settings.is_short) settings.images = 1000, settings.steps = 60;
  if (settings.threads > 0) at::set_num_threads(settings.threads);

  try {
    const Data data(settings);
    std::filesystem::create_directories(settings.out);
    if (!settings.resume) {
      std::filesystem::remove(settings.out / "log.jsonl");
      for (const char* key : {"noisy", "reweighted", "held_out_only", "ceiling"})
        for (const char* kind : {".checkpoint", ".best"})
          std::filesystem::remove(settings.out / (key + std::string(kind)));
    }
    std::signal(SIGINT, on_signal);
    std::signal(SIGTERM, on_signal);

    struct Contestant {
      const char *name, *key;
      Images train;
      bool learn_weights;
      Outcome outcome = {};
    };
    Contestant contestants[] = {
        {"noisy labels", "noisy", data.train, false},
        {"noisy labels, learned weights", "reweighted", data.train, true},
        {"only the held-out images", "held_out_only", data.held_out, false},
        {"no label flipped (the ceiling)", "ceiling", {data.train.pixels, data.truth}, false}};
    if (!settings.json)
      std::printf(
          "%lld training images, %.1f %% of their labels flipped; %lld clean images held out; %d "
          "threads\n\n"
          "%-32s %13s %26s\n",
          static_cast<long long>(settings.images),
          100 * data.flipped.to(at::kDouble).mean().item<double>(),
          static_cast<long long>(settings.held_out), at::get_num_threads(), "trained on",
          "test accuracy", "at best held-out accuracy");
    for (Contestant& each : contestants) {
      each.outcome = run(settings, each.key, each.train, data, each.learn_weights);
      if (!each.outcome.finished) {
        std::fprintf(stderr, "stopped and saved; the same command with --resume goes on\n");
        return 3;
      }
      if (settings.json) continue;
      std::printf("%-32s %11.1f %% %24.1f %%\n", each.name, 100 * each.outcome.accuracy,
                  100 * each.outcome.best_accuracy);
      std::fflush(stdout);
    }

    const at::Tensor& weights = contestants[1].outcome.weights;
    const double clean_mean =
        weights.masked_select(data.flipped.logical_not()).mean().item<double>();
    const double flipped_mean = weights.masked_select(data.flipped).mean().item<double>();
    const double auc = detection(weights, data.flipped);
    nlohmann::ordered_json result = {{"images", settings.images},
                                     {"held_out", settings.held_out},
                                     {"flipped", settings.flipped},
                                     {"steps", settings.steps},
                                     {"batch", settings.batch},
                                     {"seed", settings.seed},
                                     {"threads", at::get_num_threads()},
                                     {"mean_weight_clean", clean_mean},
                                     {"mean_weight_flipped", flipped_mean},
                                     {"auc", auc}};
    for (const Contestant& each : contestants)
      result[each.key] = {{"test_accuracy", each.outcome.accuracy},
                          {"test_accuracy_at_best_held_out", each.outcome.best_accuracy},
                          {"seconds", each.outcome.seconds}};
    std::ofstream file(settings.out / "result.json");
    if (!(file << result.dump(2) << std::endl))
      throw std::runtime_error("cannot write " + (settings.out / "result.json").string());

    char subtitle[200];
    std::snprintf(subtitle, sizeof subtitle,
                  "Fashion-MNIST, %lld images, %.0f %% of the labels flipped. Test accuracy %.1f "
                  "%% with these weights, %.1f %% without.",
                  static_cast<long long>(settings.images), 100 * settings.flipped,
                  100 * contestants[1].outcome.accuracy, 100 * contestants[0].outcome.accuracy);
    draw_report({.title = "A learned weight for every training image",
                 .subtitle = subtitle,
                 .weights = weights,
                 .flipped = data.flipped,
                 .pixels = data.train.pixels,
                 .given = data.train.labels,
                 .truth = data.truth,
                 .names = kNames,
                 .clean_mean = clean_mean,
                 .flipped_mean = flipped_mean},
                settings.out / "weights.png");

    if (settings.json) {
      std::printf("%s\n", result.dump().c_str());
    } else {
      std::printf(
          "\nmean learned weight: %.3f where the label is right, %.3f where it was flipped\n"
          "a clean image outweighs a flipped one in %.1f %% of all pairs (AUC)\n\nwrote %s\n",
          clean_mean, flipped_mean, 100 * auc, (settings.out / "weights.png").c_str());
    }
    return 0;
  } catch (const NoData& error) {
    std::fprintf(stderr, "reweight: %s\n", error.what());
    return settings.is_short ? 77 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "reweight: %s\n", error.what());
    return 1;
  }
}
