// What a run's encoder is for: features of images, their classes, and which are alike.
#include "mlomae/config/json_text.h"
#include "mlomae/evaluation/classifier.h"
#include "mlomae/evaluation/encoder.h"
#include "mlomae/evaluation/features_file.h"
#include "mlomae/message.h"
#include "mlomae/program/choices.h"
#include "mlomae/program/commands.h"
#include "mlomae/program/progress_line.h"

#include <mlo/data/image_source.h>
#include <torch/nn/functional/normalization.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <memory>
#include <numeric>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;
using Paths = std::vector<std::filesystem::path>;

constexpr const char* kImages = "JPEG or PNG files, or folders of them";

struct Common {
  std::filesystem::path run;
  Paths images;
  std::string device = "cpu", feature = "class";
  int64_t threads = 0, batch = 100;
  bool json = false;

  void add_to(CLI::App& command) {
    command.add_option("run", run, "directory of the run")->required();
    command.add_option("images", images, kImages)->required();
    command
        .add_option("--feature", feature,
                    "class: the class token; mean: the mean of the patches' tokens")
        ->check(CLI::IsMember({"class", "mean"}))
        ->capture_default_str();
    command.add_option("--batch", batch, "images at a time")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command.add_option("--device", device, "cpu, cuda or cuda:N")->capture_default_str();
    command.add_option("--threads", threads, "of LibTorch; 0: its own choice")
        ->check(CLI::NonNegativeNumber);
  }
  // Of a run's own settings only what runs it.
  at::Device prepared() const {
    Settings settings;
    settings.run.device = device, settings.run.threads = threads;
    prepare(settings);
    return at::Device(device);
  }
};

struct Embedded {
  std::vector<std::string> names;
  Features features;
};

Embedded embedded(const Encoder& encoder, const Paths& given, int64_t batch) {
  const Paths files = image_files(given);
  Embedded e;
  for (const auto& file : files) e.names.push_back(file.string());
  e.features = encoder.of(*unlabelled(files, encoder.mae->options().channels), batch,
                          progress_line("features"));
  return e;
}

void add_embed(CLI::App& app, Action& chosen) {
  struct Arguments : Common {
    std::filesystem::path out;
  };
  CLI::App* command = app.add_subcommand(
      "embed", "features of images by a run's encoder, as .safetensors, .npy or .csv");
  const auto arguments = std::make_shared<Arguments>();
  arguments->add_to(*command);
  command
      ->add_option("-o,--out", arguments->out,
                   "the file: .safetensors (both features, and names), .npy or .csv (one feature)")
      ->required();
  command->footer("Example:  mlomae embed run photos -o photos.csv");
  command->callback([arguments, &chosen] {
    chosen = [arguments] {
      check_features_file(arguments->out);
      const Encoder encoder = read_encoder({arguments->run}, arguments->prepared());
      const Embedded e = embedded(encoder, arguments->images, arguments->batch);
      write_features(arguments->out, e.names, e.features, arguments->feature);
      print(stdout, "{}: {} images, {} numbers each", arguments->out.string(), e.names.size(),
            encoder.mae->options().dim);
      return 0;
    };
  });
}

// The `count` largest of a row of numbers, and what they are called.
std::vector<std::pair<std::string, double>> largest(const at::Tensor& row,
                                                    const std::vector<std::string>& names,
                                                    int64_t count) {
  const auto [values, places] = row.to(at::kDouble).topk(std::min(count, row.size(0)));
  std::vector<std::pair<std::string, double>> found;
  for (int64_t i = 0; i < values.size(0); ++i)
    found.emplace_back(names[static_cast<std::size_t>(places[i].item<int64_t>())],
                       values[i].item<double>());
  return found;
}

void print_found(const std::string& image, const std::vector<std::pair<std::string, double>>& found,
                 const char* kind, const char* number, bool json) {
  if (json) {
    Json line = {{"image", image}, {kind, Json::array()}};
    for (const auto& [name, value] : found) line[kind].push_back({{"name", name}, {number, value}});
    print(stdout, "{}", json_text(line));
    return;
  }
  std::string list;
  for (const auto& [name, value] : found)
    list += message("{} {} {:.3f}", list.empty() ? "" : ",", name, value);
  print(stdout, "{}:{}", image, list);
}

struct Predicting : Common {
  std::string by = "linear-probe";
  int64_t top = 3;
};

// What an evaluation has left, to predict by: classes of what images.
struct Predictor {
  std::vector<std::string> classes;
  std::function<at::Tensor(const Paths&)> logits;
};

Predictor by_probe(const std::filesystem::path& kept, const std::string& again,
                   const Encoder& encoder, const Predicting& arguments) {
  const Probes probes = read_probes(kept);
  require(probes.encoder == checksum(encoder.mae),
          "{}: this probe is of another encoder than the run has now; call {}", kept.string(),
          again);
  return {probes.classes, [=, probe = probes.of(arguments.feature), batch = arguments.batch,
                           feature = arguments.feature](const Paths& files) {
            return probe.logits(embedded(encoder, files, batch).features.of(feature));
          }};
}

Predictor by_classifier(const std::filesystem::path& kept, const Encoder& encoder,
                        const at::Device& device) {
  const Classifier c = read_classifier(kept);
  return {
      c.classes, [=](const Paths& files) {
        MaskedAutoencoder mae = c.mae;
        Head head = c.head;
        mae->to(device), head->to(device);
        mae->eval(), head->eval();
        const auto images = unlabelled(files, mae->options().channels);
        std::vector<int64_t> rows(files.size());
        std::iota(rows.begin(), rows.end(), int64_t{0});
        return head
            ->forward(mae->features(
                mlo::image_batch(*images, rows, 0, images->size(), encoder.plain)[0].to(device)))
            .cpu();
      }};
}

int predict(const Predicting& arguments) {
  const at::Device device = arguments.prepared();
  const RunDirectory directory{arguments.run};
  const Encoder encoder = read_encoder(directory, device);
  const auto kept = directory.predictor(arguments.by);
  const std::string again = message("mlomae evaluate {} {}", arguments.by, directory.path.string());
  std::error_code error;
  require(std::filesystem::exists(kept, error),
          "{} is not there: nothing was trained to predict by; call {}", kept.string(), again);
  const at::NoGradGuard no_grad;
  const Predictor predictor = arguments.by == "linear-probe"
                                  ? by_probe(kept, again, encoder, arguments)
                                  : by_classifier(kept, encoder, device);
  const Paths files = image_files(arguments.images);
  for (auto begin = files.begin(); begin != files.end();) {
    const auto end = begin + std::min<std::ptrdiff_t>(files.end() - begin, arguments.batch);
    const Paths part(begin, end);
    const at::Tensor probabilities = predictor.logits(part).softmax(1);
    require<mlo::NonFiniteError>(probabilities.isfinite().all().item<bool>(),
                                 "{}: what this model makes of the images is not finite; call {}",
                                 kept.string(), again);
    for (std::size_t i = 0; i < part.size(); ++i)
      print_found(part[i].string(),
                  largest(probabilities[static_cast<int64_t>(i)], predictor.classes, arguments.top),
                  "classes", "probability", arguments.json);
    begin = end;
  }
  return 0;
}

void add_predict(CLI::App& app, Action& chosen) {
  CLI::App* command = app.add_subcommand(
      "predict",
      "classes of images, by the probe or the fine-tuned model that `evaluate` has left");
  const auto arguments = std::make_shared<Predicting>();
  arguments->add_to(*command);
  command
      ->add_option("--by", arguments->by,
                   "linear-probe, finetune or scratch: which evaluation's model")
      ->check(CLI::IsMember({"linear-probe", "finetune", "scratch"}))
      ->capture_default_str();
  command->add_option("--top", arguments->top, "classes an image, the most probable first")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "a JSON object an image");
  command->footer("Example:  mlomae evaluate linear-probe run; mlomae predict run photos");
  command->callback([arguments, &chosen] { chosen = [arguments] { return predict(*arguments); }; });
}

void add_nearest(CLI::App& app, Action& chosen) {
  struct Arguments : Common {
    Paths queries;
    int64_t top = 5;
  };
  CLI::App* command = app.add_subcommand(
      "nearest", "for images, those among others whose features are nearest by cosine");
  const auto arguments = std::make_shared<Arguments>();
  arguments->add_to(*command);
  command
      ->add_option("--to", arguments->queries,
                   std::string("the images that are asked about: ") + kImages)
      ->required();
  command->add_option("--top", arguments->top, "images each, the nearest first")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "a JSON object an image");
  command->footer("Example:  mlomae nearest run photos --to photos/1.jpg");
  command->callback([arguments, &chosen] {
    chosen = [arguments] {
      const Encoder encoder = read_encoder({arguments->run}, arguments->prepared());
      const Embedded all = embedded(encoder, arguments->images, arguments->batch),
                     asked = embedded(encoder, arguments->queries, arguments->batch);
      const auto unit = [&](const Embedded& e) {
        return torch::nn::functional::normalize(e.features.of(arguments->feature));
      };
      const at::Tensor known = unit(all), queries = unit(asked);
      for (std::size_t i = 0; i < asked.names.size(); ++i)
        print_found(
            asked.names[i],
            largest(known.matmul(queries[static_cast<int64_t>(i)]), all.names, arguments->top),
            "nearest", "similarity", arguments->json);
      return 0;
    };
  });
}

}  // namespace

void add_use(CLI::App& app, Action& chosen) {
  add_embed(app, chosen);
  add_predict(app, chosen);
  add_nearest(app, chosen);
}

}  // namespace mlomae
