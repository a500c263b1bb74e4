#pragma once

#include "mlomae/evaluation/features.h"

#include <filesystem>
#include <string>
#include <vector>

namespace mlomae {

/// Throws mlo::ConfigError for an ending that `write_features` does not know.
void check_features_file(const std::filesystem::path& file);

/// Features of images, a row each in their order, in the format of the file's ending:
/// .safetensors: "class" and "mean" [N, dim], the images' names as a JSON list in the metadata
/// "images"; .npy: float32 [N, dim] of `feature` ("class" or "mean"), without names; .csv: a
/// header, and for each image its name and the numbers of `feature`. Replaces `file` atomically;
/// throws mlo::Error naming it.
void write_features(const std::filesystem::path& file, const std::vector<std::string>& images,
                    const Features& features, const std::string& feature);

}  // namespace mlomae
