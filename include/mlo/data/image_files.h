#pragma once

#include "mlo/data/images.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace mlo {

/// Whether a file is taken for an image, by its name alone: .jpg, .jpeg, .jpe, .jfif or .png, in upper or lower case.
bool named_as_image(const std::filesystem::path& file);

struct ImageSize {
  int64_t width = 0, height = 0;
  bool operator==(const ImageSize&) const = default;
};
/// Of a JPEG or PNG file, from its header: a few kilobytes of the file are read, and nothing is decoded (unless the header is an
/// odd one). EXIF orientation does not count, as stored. Throws mlo::Error as read_image does.
ImageSize image_size(const std::filesystem::path& file);

/// JPEG and PNG files as a set, in this order, each read when it is asked for. Throws mlo::ConfigError for labels that are not
/// one a file, or not below the number of classes.
std::shared_ptr<const ImageSet> file_images(std::vector<std::filesystem::path> files, std::vector<int64_t> labels,
                                            std::vector<std::string> classes, int64_t channels = 3,
                                            Orientation orientation = Orientation::as_stored);

}  // namespace mlo
