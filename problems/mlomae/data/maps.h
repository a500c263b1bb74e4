#pragma once

#include <mlo/data/augment.h>
#include <mlo/data/images.h>

#include <filesystem>
#include <memory>
#include <vector>

namespace mlomae {

/// Maps of images, one a row: grey, of the image's size, 255 where it shows what counts. `folder`
/// holds train-maps-idx3-ubyte (plain or .gz), one map an image in the set's order. Throws
/// mlo::ConfigError or mlo::Error where maps are missing or do not fit.
std::shared_ptr<const mlo::ImageSet> idx_maps(const std::filesystem::path& folder,
                                              const mlo::ImageSet& images);

/// The same for image files: that of `root`/train/CLASS/NAME.jpg is `folder`/train/CLASS/NAME.png.
std::shared_ptr<const mlo::ImageSet> folder_maps(const std::filesystem::path& folder,
                                                 const std::filesystem::path& root,
                                                 const std::vector<std::filesystem::path>& files,
                                                 const std::vector<mlo::ImageSize>& sizes);

/// Throws mlo::ConfigError for maps of which, in up to 64 images, none shows anything: masks of
/// zeros and ones for example.
void check_maps(const std::filesystem::path& folder, const mlo::ImageSet& maps);

/// Images with their maps as one more channel, so that a crop of one is a crop of both; and the
/// augmentation for them, which leaves the map's values between 0 and 1.
std::shared_ptr<const mlo::ImageSet> joined(std::shared_ptr<const mlo::ImageSet> images,
                                            std::shared_ptr<const mlo::ImageSet> maps);
mlo::Augmentation with_map(mlo::Augmentation augmentation, int64_t channels);

}  // namespace mlomae
