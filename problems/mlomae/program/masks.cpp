#include "mlomae/evaluation/encoder.h"
#include "mlomae/message.h"
#include "mlomae/program/choices.h"
#include "mlomae/program/commands.h"
#include "mlomae/run/pictures.h"
#include "mlomae/run/run_directory.h"
#include "mlomae/training/monitor.h"

#include <mlo/data/image_source.h>
#include <mlo/data/images.h>
#include <torch/types.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

namespace mlomae {

namespace {

// NAME.masks.png for each image; where two have one name, with the folders that they are in:
// a_0.png.masks.png.
std::vector<std::filesystem::path> results(const std::vector<std::filesystem::path>& images,
                                           const std::filesystem::path& folder) {
  std::map<std::string, int> of_name;
  for (const auto& image : images) ++of_name[image.stem().string()];
  std::map<std::filesystem::path, std::filesystem::path> source;
  std::vector<std::filesystem::path> files;
  for (const auto& image : images) {
    std::string name = image.stem().string();
    if (of_name[name] > 1) {
      name = image.lexically_normal().relative_path().string();
      std::replace(name.begin(), name.end(), '/', '_');
    }
    files.push_back(folder / (name + ".masks.png"));
    if (const auto [other, is_new] = source.emplace(files.back(), image); !is_new)
      refuse(
          "{} and {} would both be written to {}; give one of them in a call of its own, with "
          "another --out",
          other->second.string(), image.string(), files.back().string());
  }
  return files;
}

}  // namespace

void add_masks(CLI::App& app, Action& chosen) {
  struct Arguments {
    std::string data;
    std::filesystem::path run, out = ".";
    std::vector<std::filesystem::path> images;
  };
  CLI::App* command = app.add_subcommand(
      "masks", "what a run makes of images: probabilities, mask and reconstruction as PNG");
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("run", arguments->run, "directory of the run")->required();
  command->add_option("images", arguments->images, "JPEG or PNG files, or folders of them")
      ->required();
  command
      ->add_option("-o,--out", arguments->out,
                   "folder for NAME.masks.png: image, probability, masked, reconstruction")
      ->capture_default_str();
  command->add_option("--data", arguments->data,
                      "folder with the run's images, where it is not where it was");
  command->callback([arguments, &chosen] {
    chosen = [arguments] {
      const std::vector<std::filesystem::path> images = image_files(arguments->images);
      const std::vector<std::filesystem::path> outs = results(images, arguments->out);
      const RunDirectory directory{arguments->run};
      Settings settings = directory.settings();
      if (!arguments->data.empty()) settings.data.path = arguments->data;
      settings.data.maps.clear();  // they are of the training images
      prepare(settings);
      const Dataset dataset = open_dataset(settings);
      const Models models = directory.read_models(make_models(settings, dataset));
      std::filesystem::create_directories(arguments->out);
      for (std::size_t i = 0; i < outs.size(); ++i) {
        const std::filesystem::path &file = images[i], &out = outs[i];
        const auto set =
            mlo::tensor_images(mlo::read_image(file, dataset.train->channels()).unsqueeze(0),
                               torch::zeros({1}, at::kLong), dataset.train->classes());
        const Snapshot s = take_snapshot(settings, dataset, models,
                                         mlo::image_batch(*set, {0}, 0, 1, dataset.plain())[0], 0);
        std::vector<at::Tensor> row = {picture(s.images[0])};
        if (s.probability.defined()) row.push_back(heat_map(s.probability[0], s.images.size(2)));
        row.push_back(masked_picture(s.images[0], s.masked[0]));
        row.push_back(picture(s.reconstruction[0]));
        mlo::write_png(out,
                       enlarged(side_by_side(row), std::max<int64_t>(1, 224 / s.images.size(2))));
        print(stdout, "{}", out.string());
      }
      return 0;
    };
  });
}

}  // namespace mlomae
