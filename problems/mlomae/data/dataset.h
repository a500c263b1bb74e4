#pragma once

#include "mlomae/config/settings.h"
#include "mlomae/models/options.h"

#include <mlo/data/augment.h>
#include <mlo/data/images.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace mlomae {

/// The images of a run.
struct Dataset {
  std::string name, format;                          ///< folder's name; cifar10, cifar100, idx or folder
  std::shared_ptr<const mlo::ImageSet> train, test;  ///< test may be empty (null) for a folder without
  std::vector<int64_t> pretrain, head, held_out;     ///< rows of `train` that each level is trained on
  int64_t image_size = 0;                            ///< side of the network's input
  std::vector<double> mean, deviation;               ///< by channel, of values 0 … 1

  /// With crops and flips, as the settings say; and without, for everything that judges.
  mlo::Augmentation augmented(const Settings& settings) const;
  mlo::Augmentation plain() const;
};

using OnBadImage = std::function<void(const std::string& message)>;
/// Opens `data.path`. Throws mlo::ConfigError or mlo::Error naming file or setting and the cure: what is not there, sets whose
/// parts differ in channels or classes, fewer images than a batch, images that are no multiple of the patch. `on_bad_image` hears
/// of each image that is left out under data.on_bad_image = skip.
Dataset open_dataset(
    const Settings& settings, const OnBadImage& on_bad_image = [](const std::string&) {});

/// What a folder is called: the last name of its path, also of "runs/" and ".".
std::string folder_name(const std::filesystem::path& folder);

/// Some rows of a set, as a set.
std::shared_ptr<const mlo::ImageSet> subset(std::shared_ptr<const mlo::ImageSet> images, std::vector<int64_t> rows);

/// The model's shape for the data.
ModelOptions model_options(const Settings& settings, const Dataset& dataset);

}  // namespace mlomae
