#pragma once

#include "mlo/data/images.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// JPEG and PNG files as a set, in this order, each read when it is asked for. Throws
/// mlo::ConfigError for labels that are not one a file, or not below the number of classes.
std::shared_ptr<const ImageSet> file_images(std::vector<std::filesystem::path> files,
                                            std::vector<int64_t> labels,
                                            std::vector<std::string> classes, int64_t channels = 3,
                                            Orientation orientation = Orientation::as_stored);

}  // namespace mlo
#pragma GCC visibility pop
