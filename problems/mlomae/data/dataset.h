#pragma once

#include "mlomae/config/settings.h"
#include "mlomae/models/options.h"

#include <mlo/data/augment.h>
#include <mlo/data/images.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace mlomae {

/// The images of a run.
struct Dataset {
  std::string name, format;  ///< folder's name; cifar10, cifar100, idx or folder
  std::shared_ptr<const mlo::ImageSet> train,
      test;  ///< test may be null: no labels, or none kept for it
  std::shared_ptr<const mlo::ImageSet> unlabelled;  ///< those of data.unlabelled; null without
  /// of `train`, row by row, a grey one an image: what counts in it; null without data.maps
  std::shared_ptr<const mlo::ImageSet> maps;
  bool trained_by_maps = false;  ///< and not only judged by them
  /// rows of pretrain_images() that the reconstruction level is trained on
  std::vector<int64_t> pretrain;
  std::vector<int64_t> head, held_out;  ///< rows of `train` that the levels above it are trained on
  int64_t image_size = 0;               ///< side of the network's input
  std::vector<double> mean, deviation;  ///< by channel, of values 0 … 1
  /// what people should know: images that are not used, or not as they are
  std::vector<std::string> notices;
  uint64_t files = 0;  ///< digest of the files' names and lengths (folders)

  const std::shared_ptr<const mlo::ImageSet>& pretrain_images() const {
    return unlabelled ? unlabelled : train;
  }
  /// One class says no more than none.
  bool labelled() const { return train->classes().size() > 1; }
  /// Throws mlo::ConfigError, with the cure, where there are no labels or no test images to judge
  /// an encoder by.
  void require_test() const;

  /// Image size and channels in place of 0, so that an encoder is judged on other images as it was
  /// trained.
  void resolve(Settings& settings) const;

  /// Sixteen digits that are the same as long as the data are: names and lengths of files, classes,
  /// labels, which rows each level is trained on, and pixels: all of them where they are in memory,
  /// of 64 images where they are files. Not where the folder is.
  std::string fingerprint() const;

  /// With crops and flips, as the settings say; and without, for everything that judges.
  mlo::Augmentation augmented(const Settings& settings) const;
  mlo::Augmentation plain() const;
};

/// Opens `data.path` and `data.unlabelled`. Throws mlo::ConfigError or mlo::Error naming file or
/// setting and the cure: what is not there, sets whose parts differ in channels or classes, methods
/// that learn from labels without labels, fewer images than a batch, images that are no multiple of
/// the patch, more memory than there is. Of folders the headers of all images are read.
Dataset open_dataset(const Settings& settings);

/// What a folder is called: the last name of its path, also of "runs/" and ".".
std::string folder_name(const std::filesystem::path& folder);

/// Some rows of a set, as a set.
std::shared_ptr<const mlo::ImageSet> subset(std::shared_ptr<const mlo::ImageSet> images,
                                            std::vector<int64_t> rows);

/// The model's shape for the data.
ModelOptions model_options(const Settings& settings, const Dataset& dataset);

}  // namespace mlomae
