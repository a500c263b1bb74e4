#pragma once

#include "mlo/data/image_file.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// Labelled images, decoded when asked for. Thread-safe: several workers may ask at a time.
class ImageSet {
 public:
  virtual ~ImageSet() = default;
  virtual int64_t size() const = 0;
  virtual int64_t channels() const = 0;                         ///< 1 or 3, the same for all images
  virtual const std::vector<std::string>& classes() const = 0;  ///< names, by label
  virtual int64_t label(int64_t i) const = 0;                   ///< 0 … classes().size() − 1
  /// uint8 [channels, height, width]; sizes may differ between images. Throws mlo::Error naming the
  /// file.
  virtual at::Tensor image(int64_t i) const = 0;
  /// A text that differs where images, labels or classes do, as far as can be seen at little cost:
  /// see BatchSource::fingerprint. By default from the labels, the names of the classes and 16
  /// images at even distances.
  virtual std::string fingerprint() const;
};

/// uint8 [N, C, H, W] and int64 [N] in memory. Classes without a name are called by their number.
std::shared_ptr<const ImageSet> tensor_images(at::Tensor images, at::Tensor labels,
                                              std::vector<std::string> classes = {});
/// The official binary layout: data_batch_1.bin … data_batch_5.bin (those that are there) or
/// test_batch.bin, batches.meta.txt.
std::shared_ptr<const ImageSet> cifar10_images(const std::filesystem::path& folder, bool train);
/// train.bin or test.bin, with the fine labels (100) or the coarse ones (20).
std::shared_ptr<const ImageSet> cifar100_images(const std::filesystem::path& folder, bool train,
                                                bool coarse = false);
/// A pair of IDX files (plain or .gz): MNIST and its kin.
std::shared_ptr<const ImageSet> idx_images(const std::filesystem::path& images,
                                           const std::filesystem::path& labels);

struct ImageFolderOptions {
  int64_t channels = 3;  ///< grey images are repeated, colour ones averaged (as PIL's "L")
  Orientation orientation = Orientation::as_stored;
  /// Given: every image is read when the folder is opened, those that cannot be are left out, and
  /// it is called with the message of each. Not given: images are read when they are asked for, and
  /// one that cannot be is an error.
  std::function<void(const std::string& message)> on_bad_image = {};
};
/// One folder a class, JPEG and PNG files in it (by `named_as_image`; others are not looked at);
/// classes in the order of their names.
std::shared_ptr<const ImageSet> folder_images(const std::filesystem::path& folder,
                                              ImageFolderOptions options = {});

/// Row numbers of two parts, ascending. A fraction `held_out` of each class is in the second, at
/// least one image and not all; the only image of a class is in the first. Throws mlo::ConfigError
/// where a part would be empty.
struct Split {
  std::vector<int64_t> train, held_out;
};
Split split_by_class(const ImageSet& images, double held_out, uint64_t seed);

}  // namespace mlo
#pragma GCC visibility pop
