#pragma once

#include "mlomae/data/digest.h"

#include <mlo/data/image_file.h>
#include <mlo/data/image_files.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace mlomae {

struct FolderOptions {
  int64_t channels = 3;
  /// by the method: folders are classes, and one without images is an error
  bool labels_needed = true;
  bool skip_bad = false;  ///< read every image now and leave out those that cannot be; else look at
                          ///< the headers of all
};

/// Images of a folder. Without class folders they have one class, which says nothing: see
/// Dataset::labelled.
struct FolderImages {
  std::shared_ptr<const mlo::ImageSet> images;
  std::vector<std::filesystem::path> files;  ///< of `images`, row by row
  std::vector<mlo::ImageSize> sizes;
  Digest digest;  ///< of the files' places in the folder, their labels and lengths
};
struct FolderParts {
  FolderImages train;
  std::optional<FolderImages> test;
};

/// train/ and test/ (or training/, testing/, and for test/ also val/, valid/, validation/; in upper
/// or lower case) with one folder a class in each, one folder a class directly, or images without
/// classes. What is beneath a class folder is of that class, whatever its depth. `notices` gets a
/// sentence about all that is there and not used. Throws mlo::Error or mlo::ConfigError naming
/// folder or file.
FolderParts read_folder(const std::filesystem::path& folder, const FolderOptions& options,
                        std::vector<std::string>& notices);

/// Every image beneath a folder, without labels.
FolderImages read_unlabelled(const std::filesystem::path& folder, const FolderOptions& options,
                             std::vector<std::string>& notices);

/// Some names for a message: "'a', 'b', 'c' and 7 more".
std::string some_names(const std::vector<std::string>& names);

}  // namespace mlomae
