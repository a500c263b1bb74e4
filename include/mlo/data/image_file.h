#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// Cameras store an image as the sensor saw it, and say in an EXIF tag how to turn it. `as_stored`
/// does not look at the tag, as torchvision does not; `upright` turns the image, as PIL's
/// ImageOps.exif_transpose.
enum class Orientation { as_stored, upright };

/// A JPEG or PNG file as uint8 [channels, height, width]. Of 16 bits the upper 8 are read: where a
/// camera's or scanner's 12 bits stand in the lower ones, 16 grey levels are left, so multiply such
/// images by 16 before. CMYK is read as Adobe writes it. Throws mlo::Error naming the file and what
/// is wrong with it: also for what is no regular file, for pixels out of proportion to the file
/// (decoding, converting to so many channels and resizing would take more than 224 MiB, and more
/// than 128 times the file's), and for a JPEG of more than 100 scans (fewer, beyond 86 million
/// pixels).
at::Tensor read_image(const std::filesystem::path& file, int64_t channels = 3,
                      Orientation orientation = Orientation::as_stored);
/// uint8 [1 or 3, height, width] as the bytes of a PNG file, or as a file.
std::vector<uint8_t> encode_png(const at::Tensor& image);
void write_png(const std::filesystem::path& file, const at::Tensor& image);

/// Whether a file is taken for an image, by its name alone: .jpg, .jpeg, .jpe, .jfif or .png, in
/// upper or lower case.
bool named_as_image(const std::filesystem::path& file);

struct ImageSize {
  int64_t width = 0, height = 0;
  bool operator==(const ImageSize&) const = default;
};
/// Of a JPEG or PNG file, from its header: a few kilobytes of the file are read, and nothing is
/// decoded (unless the header is an odd one). EXIF orientation does not count, as stored. Throws
/// mlo::Error as read_image does, also for an image that takes too much memory to be read with so
/// many channels.
ImageSize image_size(const std::filesystem::path& file, int64_t channels = 3);

}  // namespace mlo
#pragma GCC visibility pop
