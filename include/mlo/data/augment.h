#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// RandomResizedCrop as torchvision draws it: a part of random area and aspect ratio (ten tries,
/// then the middle), resized.
struct RandomResizedCrop {
  double smallest_area = 0.2, largest_area = 1.0;    ///< of the image's
  double narrowest = 3.0 / 4.0, widest = 4.0 / 3.0;  ///< width over height
};

/// From a stored image to what a network reads: geometry, then value/255, then (x − mean)/deviation
/// by channel. Images of another size are resized by the shorter side and cropped in the middle,
/// unless there is a resized crop. All resizing is bicubic and antialiased, to the bit as Pillow 13
/// does it.
struct Augmentation {
  int64_t size = 32;  ///< side of the result
  /// > 0: zeros around the image, then a random crop; a resized crop has none
  int64_t crop_padding = 0;
  std::optional<RandomResizedCrop> resized_crop = std::nullopt;
  bool flip = false;  ///< left and right exchanged half of the time
  std::vector<double> mean = {0.0}, deviation = {1.0};  ///< one number, or one a channel

  void validate(int64_t channels) const;
};

/// uint8 [C, H, W] → float32 [C, size, size] at `out`. All randomness comes from `key`. Throws
/// mlo::Error for an image that does not fit.
void augment(const at::Tensor& image, const Augmentation& augmentation, uint64_t key, float* out);

/// uint8 [C, H, W] → uint8 [C, height, width], bicubic and antialiased, to the bit as PIL's
/// Image.resize(…, BICUBIC).
at::Tensor resize_bicubic(const at::Tensor& image, int64_t height, int64_t width);

}  // namespace mlo
#pragma GCC visibility pop
