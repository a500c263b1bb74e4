#include "data/image_file.h"

#include "mlo/data/images.h"
#include "mlo/error.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <fstream>
#include <iterator>

namespace mlo {
namespace {

std::vector<uint8_t> bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file))
    throw Error("image '" + file.string() + "' cannot be opened; check its name, and that it may be read");
  std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (in.bad()) throw Error("image '" + file.string() + "' cannot be read to its end; check the disk");
  return bytes;
}

bool begins(const std::vector<uint8_t>& bytes, std::initializer_list<uint8_t> magic) {
  return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin());
}

Pixels decode(const std::vector<uint8_t>& bytes) {
  if (begins(bytes, {0xFF, 0xD8, 0xFF})) return decode_jpeg(bytes);
  if (begins(bytes, {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'})) return decode_png(bytes);
  throw Error(bytes.empty() ? "is empty" : "is neither JPEG nor PNG, whatever its name says");
}

// ITU-R 601, in PIL's integers.
uint8_t grey(const uint8_t* rgb) {
  return static_cast<uint8_t>((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

at::Tensor as_planes(const Pixels& pixels, int64_t channels) {
  const at::Tensor image = at::empty({channels, pixels.height, pixels.width}, at::kByte);
  const int64_t plane = pixels.height * pixels.width, have = pixels.channels;
  auto* out = image.mutable_data_ptr<uint8_t>();
  const uint8_t* in = pixels.values.data();
  for (int64_t i = 0; i < plane; ++i, in += have)
    for (int64_t c = 0; c < channels; ++c) out[c * plane + i] = have == 1 ? in[0] : channels == 1 ? grey(in) : in[c];
  return image;
}

}  // namespace

at::Tensor read_image(const std::filesystem::path& file, int64_t channels) {
  if (channels != 1 && channels != 3)
    throw ConfigError("read_image: " + std::to_string(channels) + " channels; expected 1 (grey) or 3 (colour)");
  const std::vector<uint8_t> bytes = bytes_of(file);
  try {
    return as_planes(decode(bytes), channels);
  } catch (const Error& error) {
    throw Error("image '" + file.string() + "' " + error.what() + "; get it again, or remove it");
  }
}

}  // namespace mlo
