#include "mlomae/config/json_text.h"
#include "mlomae/evaluation/classifier.h"
#include "mlomae/evaluation/features.h"
#include "mlomae/evaluation/finetune.h"
#include "mlomae/evaluation/knn.h"
#include "mlomae/evaluation/linear_probe.h"
#include "mlomae/message.h"
#include "mlomae/program/choices.h"
#include "mlomae/program/commands.h"
#include "mlomae/program/progress_line.h"
#include "mlomae/run/record.h"
#include "mlomae/run/run_directory.h"
#include "mlomae/run/score.h"
#include "mlomae/training/pretraining.h"

#include <mlo/callbacks/progress_bar.h>
#include <CLI/CLI.hpp>

#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

struct EvaluateArguments {
  std::string kinds;
  std::filesystem::path run;
  SettingChoices choices;
  bool json = false;
};

// Writes what was trained.
using Keep = std::function<void(const std::filesystem::path&)>;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Of all test images and the training images, and how long they took.
struct BothFeatures {
  Features train, test;
  std::string encoder;  // its checksum
  double seconds = 0.0;
};

BothFeatures both_features(const Settings& settings, const Dataset& dataset, const Models& models) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t batch = settings.evaluation.batch;
  BothFeatures f;
  f.train = features(models.mae, *dataset.train, {}, dataset.plain(), batch,
                     progress_line("features of training images"));
  f.test = features(models.mae, *dataset.test, {}, dataset.plain(), batch,
                    progress_line("features of test images"));
  f.encoder = checksum(models.mae);
  f.seconds = seconds_since(start);
  return f;
}

std::vector<Score> by_features(const std::string& kind, const Settings& settings,
                               const Dataset& dataset, const BothFeatures& f, Keep& keep) {
  const Settings::Evaluation& s = settings.evaluation;
  const auto classes = static_cast<int64_t>(dataset.train->classes().size());
  std::vector<Score> scores;
  Probes probes{.classes = dataset.train->classes(), .of_feature = {}, .encoder = f.encoder};
  for (const std::string feature : {"class", "mean"}) {
    const auto begin = std::chrono::steady_clock::now();
    Score score{.kind = kind, .feature = feature, .images = f.test.labels.size(0)};
    if (kind == "knn") {
      score.accuracy =
          knn_accuracy(f.train.of(feature), f.train.labels, f.test.of(feature), f.test.labels,
                       classes, {.neighbours = s.neighbours, .temperature = s.temperature});
      score.settings = {{"neighbours", s.neighbours}, {"temperature", s.temperature}};
    } else {
      const LinearProbe probe =
          linear_probe(f.train.of(feature), f.train.labels, f.test.of(feature), f.test.labels,
                       classes, {.seed = static_cast<uint64_t>(s.seed)});
      score.accuracy = probe.accuracy;
      score.settings = {{"strength", probe.strength}, {"training_loss", probe.training_loss}};
      probes.of_feature.emplace_back(feature, probe);
    }
    score.seconds = f.seconds + seconds_since(begin);
    scores.push_back(std::move(score));
  }
  if (kind == "linear-probe")
    keep = [probes](const std::filesystem::path& file) { write_probes(file, probes); };
  return scores;
}

std::vector<Score> by_training(const std::string& kind, const Settings& settings,
                               const Dataset& dataset, const Models& models, Keep& keep) {
  const Settings::Evaluation& s = settings.evaluation;
  const FinetuneOptions options{.epochs = s.finetune_epochs,
                                .batch = s.finetune_batch,
                                .lr = s.finetune_lr,
                                .weight_decay = s.finetune_weight_decay,
                                .warmup = s.finetune_warmup,
                                .layer_decay = kind == "scratch" ? 1.0 : s.finetune_layer_decay,
                                .label_smoothing = s.finetune_label_smoothing,
                                .dropout = s.finetune_dropout,
                                .seed = static_cast<uint64_t>(s.seed)};
  const Finetuned result =
      finetune(models.mae, dataset, dataset.augmented(settings), options,
               mlo::progress_bar(
                   stderr, {.per_step = static_cast<double>(options.batch), .unit = "images"}));
  keep = [mae = models.mae, head = result.head, classes = dataset.train->classes()](
             const std::filesystem::path& file) { write_classifier(file, mae, head, classes); };
  return {{.kind = kind,
           .feature = "",
           .accuracy = result.accuracy,
           .images = dataset.test->size(),
           .seconds = result.seconds,
           .settings = {{"epochs", options.epochs},
                        {"steps", result.steps},
                        {"batch", options.batch},
                        {"lr", options.lr},
                        {"layer_decay", options.layer_decay},
                        {"weight_decay", options.weight_decay}}}};
}

void print_scores(const EvaluateArguments& arguments, const std::vector<Score>& scores) {
  for (const Score& score : scores) {
    if (arguments.json) {
      Json line = {{"run", arguments.run.string()}};
      line.update(to_json(score));
      print(stdout, "{}", json_text(line));
    } else {
      print(stdout, "{}: {}{}: {:.2f} % (standard error {:.2f}) of {} test images, {:.0f} s",
            arguments.run.string(), score.kind,
            score.feature == "class"  ? ", class token"
            : score.feature == "mean" ? ", mean of patches"
                                      : "",
            100 * score.accuracy, 100 * score.standard_error(), score.images, score.seconds);
    }
  }
  std::fflush(stdout);
}

int evaluate(const EvaluateArguments& arguments) {
  const RunDirectory directory{arguments.run};
  Settings settings = arguments.choices.settings(directory.settings());
  settings.data.maps.clear();  // an encoder is judged without them
  prepare(settings);
  const Dataset dataset = arguments.choices.any() ? opened(settings) : open_dataset(settings);
  dataset.require_test();
  const std::string encoder = std::filesystem::exists(directory.record())
                                  ? read_record(arguments.run).value("encoder", "")
                                  : std::string();
  std::optional<BothFeatures> shared;
  for (const std::string& kind : CLI::detail::split(arguments.kinds, ',')) {
    std::vector<Score> scores;
    Keep keep;
    if (kind == "knn" || kind == "linear-probe") {
      if (!shared)
        shared =
            both_features(settings, dataset, directory.read_models(make_models(settings, dataset)));
      scores = by_features(kind, settings, dataset, *shared, keep);
    } else {
      const Models made = make_models(settings, dataset);
      scores = by_training(kind, settings, dataset,
                           kind == "scratch" ? made : directory.read_models(made), keep);
    }
    if (kind != "scratch")
      for (Score& score : scores) score.encoder = encoder;
    print_scores(arguments, scores);  // before it is kept: that may fail, and took long to know
    write_scores(arguments.run, scores);
    if (keep) keep(directory.predictor(kind));
  }
  return 0;
}

}  // namespace

void add_evaluate(CLI::App& app, Action& chosen) {
  CLI::App* command = app.add_subcommand(
      "evaluate", "judge a run's encoder on the test images; results go to RUN/evaluation/");
  const auto arguments = std::make_shared<EvaluateArguments>();
  command
      ->add_option("kinds", arguments->kinds,
                   "linear-probe, knn, finetune, or scratch: the same training as finetune from "
                   "fresh weights; or several, "
                   "separated by commas")
      ->required()
      ->check(CLI::Validator(
          [](const std::string& text) {
            const CLI::IsMember known({"linear-probe", "knn", "finetune", "scratch"});
            for (const std::string& kind : CLI::detail::split(text, ','))
              if (const std::string problem = known(kind); !problem.empty()) return problem;
            return std::string();
          },
          "KIND[,KIND]"));
  command->add_option("run", arguments->run, "directory of the run")->required();
  arguments->choices.add_to(*command, /*with_method=*/false);
  command->add_flag("--json", arguments->json, "print each result as a JSON object");
  command->footer(
      "Settings: evaluation.*, and data.* to judge on other images; the rest is what the run was "
      "trained with.\n"
      "Example:  mlomae evaluate linear-probe,knn run --set evaluation.neighbours=10");
  command->callback(
      [arguments, &chosen] { chosen = [arguments] { return evaluate(*arguments); }; });
}

}  // namespace mlomae
