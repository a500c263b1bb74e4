#include "data/image_file.h"

#include "io/regular_file.h"
#include "io/stored_tensor.h"
#include "mlo/data/images.h"
#include "text.h"

#include <algorithm>

namespace mlo {
namespace {

std::vector<uint8_t> bytes_of(const std::filesystem::path& file) {
  constexpr uint64_t kMost = uint64_t{1} << 30;
  const auto fail = [&](const std::string& what, const std::string& cure) {
    refuse<Error>("{}: {}; {}", file.string(), what, cure);
  };
  RegularFile in(file, fail);
  if (in.size() > kMost) fail(message("has {} bytes, which no image has", in.size()), "remove it");
  std::vector<uint8_t> bytes(in.size());
  in.read(bytes.data(), bytes.size());
  return bytes;
}

bool begins(const std::vector<uint8_t>& bytes, std::initializer_list<uint8_t> magic) {
  return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin());
}

Pixels decode(const std::vector<uint8_t>& bytes, int64_t wanted) {
  if (begins(bytes, {0xFF, 0xD8, 0xFF})) return decode_jpeg(bytes, wanted);
  if (begins(bytes, {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'}))
    return decode_png(bytes, wanted);
  throw Error(bytes.empty() ? "is empty" : "is neither JPEG nor PNG, whatever its name says");
}

// ITU-R 601, in PIL's integers.
uint8_t grey(const uint8_t* rgb) {
  return static_cast<uint8_t>((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

at::Tensor as_planes(const Pixels& pixels, int64_t channels) {
  const at::Tensor image = allocated({channels, pixels.height, pixels.width}, at::kByte);
  if (!image.defined()) throw Error("needs more memory than there is");
  const int64_t plane = pixels.height * pixels.width, have = pixels.channels;
  auto* out = image.mutable_data_ptr<uint8_t>();
  const uint8_t* in = pixels.values.data();
  for (int64_t i = 0; i < plane; ++i, in += have)
    for (int64_t c = 0; c < channels; ++c)
      out[c * plane + i] = have == 1 ? in[0] : channels == 1 ? grey(in) : in[c];
  return image;
}

// PIL's ImageOps.exif_transpose.
at::Tensor turned(const at::Tensor& image, int orientation) {
  const at::Tensor placed = orientation >= 5 ? image.transpose(1, 2) : image;
  switch (orientation) {
    case 2:
    case 6: return placed.flip({2});
    case 3:
    case 7: return placed.flip({1, 2});
    case 4:
    case 8: return placed.flip({1});
    default: return placed.contiguous();
  }
}

}  // namespace

bool may_be_read(const Announced& image, int64_t wanted, uint64_t bytes) {
  // A page of A4 at 600 dots an inch is read, whatever its file has; and three levels may read at
  // once.
  constexpr uint64_t kHarmless = uint64_t{224} << 20, kTimesTheFile = 128;
  constexpr int64_t kMostPixels = int64_t{1} << 28;
  if (image.width < 1 || image.height < 1 || image.width > kMostPixels / image.height) return false;
  const int64_t decoded =
      image.channels == 4 ? 4 + 3 : image.channels + (image.in_scans ? 2 * image.channels : 0);
  const int64_t most = std::max(decoded, std::max(image.channels, wanted) + wanted);
  return static_cast<uint64_t>(image.width * image.height * most) <=
         std::max(kHarmless, kTimesTheFile * bytes);
}

at::Tensor read_image(const std::filesystem::path& file, int64_t channels,
                      Orientation orientation) {
  if (channels != 1 && channels != 3)
    refuse<ConfigError>("read_image: channels = {}; it must be 1 (grey) or 3 (colour)", channels);
  const std::vector<uint8_t> bytes = bytes_of(file);
  try {
    Pixels pixels = decode(bytes, channels);
    const at::Tensor image = as_planes(pixels, channels);
    pixels.values = {};  // turning takes as much once more
    return orientation == Orientation::upright ? turned(image, pixels.orientation) : image;
  } catch (const Error& error) {
    refuse<Error>("{}: {}; get it again, or remove it", file.string(), error.what());
  }
}

}  // namespace mlo
