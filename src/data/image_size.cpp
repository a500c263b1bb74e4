#include "mlo/data/image_file.h"

#include "data/image_file.h"
#include "text.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>

namespace mlo {
namespace {

namespace fs = std::filesystem;

template <std::size_t Count>
std::optional<std::array<uint8_t, Count>> next(std::ifstream& in) {
  std::array<uint8_t, Count> bytes = {};
  if (!in.read(reinterpret_cast<char*>(bytes.data()), Count)) return std::nullopt;
  return bytes;
}

std::optional<Announced> of_png(std::ifstream& in) {
  const auto head = next<18>(in);  // behind the signature: the length of the first chunk, its name,
                                   // width, height, bits, colour
  if (!head || !std::equal(head->begin() + 4, head->begin() + 8, "IHDR")) return std::nullopt;
  const auto number = [&](std::size_t at) {
    int64_t value = 0;
    for (std::size_t i = 0; i < 4; ++i) value = value << 8 | (*head)[at + i];
    return value;
  };
  constexpr uint8_t kColour = 2;  // a bit of the colour type, also of palettes
  return Announced{
      .width = number(8), .height = number(12), .channels = ((*head)[17] & kColour) != 0 ? 3 : 1};
}

// From segment to segment to the frame header. A file that is written otherwise is left to libjpeg.
std::optional<Announced> of_jpeg(std::ifstream& in) {
  constexpr int kMostSegments = 4096;
  for (int i = 0; i < kMostSegments; ++i) {
    const auto begin = next<4>(in);  // FF, the marker, the segment's length
    if (!begin || (*begin)[0] != 0xFF) return std::nullopt;
    const int marker = (*begin)[1], length = (*begin)[2] << 8 | (*begin)[3];
    const bool frame =
        marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame) {
      const auto head = next<6>(in);
      if (!head) return std::nullopt;
      return Announced{
          .width = (*head)[3] << 8 | (*head)[4],
          .height = (*head)[1] << 8 | (*head)[2],
          .channels = (*head)[5],
          .in_scans = (marker & 2) !=
                      0};  // progressive; what else comes in several scans shows behind the header
    }
    if (marker < 0xC0 || marker == 0xD9 || marker == 0xDA || (marker >= 0xD0 && marker <= 0xD7) ||
        length < 2 || !in.seekg(length - 2, std::ios::cur))
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<Announced> by_header(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  const auto magic = next<2>(in);
  if (!magic) return std::nullopt;
  if (*magic == std::array<uint8_t, 2>{0xFF, 0xD8}) return of_jpeg(in);
  const auto rest = next<6>(in);
  if (!rest || *magic != std::array<uint8_t, 2>{0x89, 'P'} ||
      *rest != std::array<uint8_t, 6>{'N', 'G', '\r', '\n', 0x1A, '\n'})
    return std::nullopt;
  return of_png(in);
}

}  // namespace

bool named_as_image(const fs::path& file) {
  std::string extension = file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  constexpr std::array<const char*, 5> kNames = {".jpg", ".jpeg", ".jpe", ".jfif", ".png"};
  return std::find(kNames.begin(), kNames.end(), extension) != kNames.end();
}

ImageSize image_size(const fs::path& file, int64_t channels) {
  std::error_code error;
  if (!fs::is_regular_file(file, error))
    refuse<Error>("{}: cannot be opened: it is no regular file; check its name, or remove it",
                  file.string());
  // A header that cannot be right is left to what reads the whole file and says what is wrong with
  // it.
  if (const auto said = by_header(file);
      said && may_be_read(*said, channels, fs::file_size(file, error)) && !error)
    return {.width = said->width, .height = said->height};
  const at::Tensor image = read_image(file, channels);
  return {.width = image.size(2), .height = image.size(1)};
}

}  // namespace mlo
