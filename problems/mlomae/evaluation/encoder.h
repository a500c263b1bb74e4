#pragma once

#include "mlomae/evaluation/features.h"
#include "mlomae/run/run_directory.h"

#include <mlo/data/augment.h>
#include <mlo/data/images.h>

#include <filesystem>
#include <memory>
#include <vector>

namespace mlomae {

/// A run's encoder and what images are made into for it. Needs the run's directory, and none of its
/// images.
struct Encoder {
  MaskedAutoencoder mae = nullptr;
  mlo::Augmentation plain = {};
  /// Features of any images, all alike made to the network's size.
  Features of(const mlo::ImageSet& images, int64_t batch, const Progress& progress = {}) const;
};
/// Throws mlo::Error naming the file and the cure for a run that was cut off or does not say what
/// its images were made into.
Encoder read_encoder(const RunDirectory& directory, const at::Device& device);

/// The files that are given, and those of the folders that are given and of all below them that are
/// named as images, sorted by name. Throws mlo::ConfigError for what is not there, and for folders
/// without images.
std::vector<std::filesystem::path> image_files(const std::vector<std::filesystem::path>& given);
/// Those files as a set without labels (all 0).
std::shared_ptr<const mlo::ImageSet> unlabelled(const std::vector<std::filesystem::path>& files,
                                                int64_t channels);

}  // namespace mlomae
