#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace mlomae {

/// Writes one part of a labelled set, with a map of each image, in the layouts that open_dataset
/// reads. Throws mlo::Error naming file and cure.
class ImageWriter {
 public:
  virtual ~ImageWriter() = default;
  /// uint8 [channels, height, width] and uint8 [1, height, width]; `row` names the image.
  virtual void add(const at::Tensor& image, const at::Tensor& map, int64_t label, int64_t row) = 0;
  virtual void close() = 0;
};

/// FOLDER/PART-images-idx3-ubyte, -labels-idx1-ubyte and -maps-idx3-ubyte: `count` grey images of
/// this side.
std::unique_ptr<ImageWriter> idx_writer(const std::filesystem::path& folder,
                                        const std::string& part, int64_t count, int64_t side);

/// FOLDER/images/PART/CLASS/ROW.png and FOLDER/maps/PART/CLASS/ROW.png, of six digits.
std::unique_ptr<ImageWriter> folder_writer(const std::filesystem::path& folder,
                                           const std::string& part,
                                           std::vector<std::string> classes);

}  // namespace mlomae
