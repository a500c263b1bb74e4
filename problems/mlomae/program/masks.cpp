#include "mlomae/program/choices.h"
#include "mlomae/program/commands.h"
#include "mlomae/report/pictures.h"
#include "mlomae/training/monitor.h"
#include "mlomae/training/run_directory.h"

#include <mlo/data/image_source.h>
#include <mlo/data/images.h>
#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <memory>

namespace mlomae {

void add_masks(CLI::App& app, Action& chosen) {
  struct Arguments {
    std::filesystem::path run, out = ".";
    std::vector<std::filesystem::path> images;
  };
  CLI::App* command = app.add_subcommand("masks", "what a run makes of images: probabilities, mask and reconstruction as PNG");
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("run", arguments->run, "directory of the run")->required();
  command->add_option("images", arguments->images, "JPEG or PNG files")->required();
  command->add_option("-o,--out", arguments->out, "folder for NAME.masks.png: image, probability, masked, reconstruction")
      ->capture_default_str();
  command->callback([arguments, &chosen] {
    chosen = [arguments] {
      const RunDirectory directory{arguments->run};
      const Settings settings = directory.settings();
      prepare(settings);
      const Dataset dataset = open_dataset(settings);
      const Models models = directory.read_models(settings, dataset);
      std::filesystem::create_directories(arguments->out);
      for (const auto& file : arguments->images) {
        const auto set = mlo::tensor_images(mlo::read_image(file, dataset.train->channels()).unsqueeze(0),
                                            torch::zeros({1}, at::kLong), dataset.train->classes());
        const Snapshot s = take_snapshot(settings, dataset, models, mlo::image_batch(*set, {0}, 0, 1, dataset.plain())[0], 0);
        std::vector<at::Tensor> row = {picture(s.images[0])};
        if (s.probability.defined()) row.push_back(heat_map(s.probability[0], s.images.size(2)));
        row.push_back(masked_picture(s.images[0], s.masked[0]));
        row.push_back(picture(s.reconstruction[0]));
        const auto out = arguments->out / (file.stem().string() + ".masks.png");
        mlo::write_png(out, enlarged(side_by_side(row), std::max<int64_t>(1, 224 / s.images.size(2))));
        std::printf("%s\n", out.string().c_str());
      }
      return 0;
    };
  });
}

}  // namespace mlomae
