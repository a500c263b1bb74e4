#include "mlo/data/image_files.h"

#include "data/fingerprint.h"
#include "mlo/error.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <mutex>
#include <optional>

namespace mlo {
namespace {

namespace fs = std::filesystem;

class FileImages final : public ImageSet {
 public:
  FileImages(int64_t channels, Orientation orientation, std::vector<std::string> classes, std::vector<fs::path> files,
             std::vector<int64_t> labels)
      : channels_(channels),
        orientation_(orientation),
        classes_(std::move(classes)),
        files_(std::move(files)),
        labels_(std::move(labels)) {}
  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  int64_t channels() const override { return channels_; }
  const std::vector<std::string>& classes() const override { return classes_; }
  int64_t label(int64_t i) const override { return labels_[static_cast<std::size_t>(i)]; }
  at::Tensor image(int64_t i) const override {
    return read_image(files_[static_cast<std::size_t>(i)], channels_, orientation_);
  }

  /// Of every file its class, name and size; of 64 at even distances what begins them.
  std::string fingerprint() const override {
    std::call_once(summed_up_, [this] {
      detail::Checksum sum;
      for (std::size_t i = 0; i < files_.size(); ++i) {
        sum.add(classes_[static_cast<std::size_t>(labels_[i])]);
        sum.add(files_[i].filename().string());
        std::error_code error;
        const auto bytes = static_cast<uint64_t>(fs::file_size(files_[i], error));  // of what is no file: an error's number
        sum.add(&bytes, sizeof(bytes));
      }
      const std::size_t looks = std::min<std::size_t>(64, files_.size());
      std::vector<char> bytes(std::size_t{1} << 16);
      for (std::size_t i = 0; i < looks; ++i) {
        const fs::path& file = files_[looks > 1 ? i * (files_.size() - 1) / (looks - 1) : 0];
        std::error_code error;
        if (!fs::is_regular_file(file, error)) continue;  // a pipe would never end
        std::ifstream in(file, std::ios::binary);
        in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        sum.add(bytes.data(), static_cast<std::size_t>(in.gcount()));
      }
      fingerprint_ = std::to_string(files_.size()) + " files " + sum.text() + ", " + std::to_string(classes_.size()) +
                     " classes, " + std::to_string(channels_) + " channels" +
                     (orientation_ == Orientation::upright ? ", upright" : "");
    });
    return fingerprint_;
  }

 private:
  int64_t channels_;
  Orientation orientation_;
  std::vector<std::string> classes_;
  std::vector<fs::path> files_;
  std::vector<int64_t> labels_;
  mutable std::once_flag summed_up_;
  mutable std::string fingerprint_;
};

template <std::size_t Count>
std::optional<std::array<uint8_t, Count>> next(std::ifstream& in) {
  std::array<uint8_t, Count> bytes = {};
  if (!in.read(reinterpret_cast<char*>(bytes.data()), Count)) return std::nullopt;
  return bytes;
}

std::optional<ImageSize> of_png(std::ifstream& in) {
  const auto head = next<16>(in);  // behind the signature: the length of the first chunk, its name, width and height
  if (!head || !std::equal(head->begin() + 4, head->begin() + 8, "IHDR")) return std::nullopt;
  const auto number = [&](std::size_t at) {
    int64_t value = 0;
    for (std::size_t i = 0; i < 4; ++i) value = value << 8 | (*head)[at + i];
    return value;
  };
  return ImageSize{.width = number(8), .height = number(12)};
}

// From segment to segment to the frame header. A file that is written otherwise is left to libjpeg.
std::optional<ImageSize> of_jpeg(std::ifstream& in) {
  constexpr int kMostSegments = 4096;
  for (int i = 0; i < kMostSegments; ++i) {
    const auto begin = next<4>(in);  // FF, the marker, the segment's length
    if (!begin || (*begin)[0] != 0xFF) return std::nullopt;
    const int marker = (*begin)[1], length = (*begin)[2] << 8 | (*begin)[3];
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame) {
      const auto head = next<5>(in);
      if (!head) return std::nullopt;
      return ImageSize{.width = (*head)[3] << 8 | (*head)[4], .height = (*head)[1] << 8 | (*head)[2]};
    }
    if (marker < 0xC0 || marker == 0xD9 || marker == 0xDA || (marker >= 0xD0 && marker <= 0xD7) || length < 2 ||
        !in.seekg(length - 2, std::ios::cur))
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<ImageSize> by_header(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  const auto magic = next<2>(in);
  if (!magic) return std::nullopt;
  if (*magic == std::array<uint8_t, 2>{0xFF, 0xD8}) return of_jpeg(in);
  const auto rest = next<6>(in);
  if (!rest || *magic != std::array<uint8_t, 2>{0x89, 'P'} || *rest != std::array<uint8_t, 6>{'N', 'G', '\r', '\n', 0x1A, '\n'})
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

ImageSize image_size(const fs::path& file) {
  std::error_code error;
  if (!fs::is_regular_file(file, error))
    throw Error("image '" + file.string() + "' cannot be opened: it is no regular file; check its name, or remove it");
  // A header that cannot be right is left to what reads the whole file and says what is wrong with it.
  constexpr int64_t kMost = int64_t{1} << 28;
  if (const auto size = by_header(file); size && size->width > 0 && size->height > 0 && size->width <= kMost / size->height)
    return *size;
  const at::Tensor image = read_image(file);
  return {.width = image.size(2), .height = image.size(1)};
}

std::shared_ptr<const ImageSet> file_images(std::vector<fs::path> files, std::vector<int64_t> labels,
                                            std::vector<std::string> classes, int64_t channels, Orientation orientation) {
  if (channels != 1 && channels != 3)
    throw ConfigError("file_images: " + std::to_string(channels) + " channels; expected 1 (grey) or 3 (colour)");
  if (files.size() != labels.size())
    throw ConfigError("file_images: " + std::to_string(labels.size()) + " labels for " + std::to_string(files.size()) +
                      " files; expected one a file");
  for (const int64_t label : labels)
    if (label < 0 || label >= static_cast<int64_t>(classes.size()))
      throw ConfigError("file_images: the label " + std::to_string(label) + " with " + std::to_string(classes.size()) +
                        " classes; expected 0 to the number of classes less one");
  return std::make_shared<FileImages>(channels, orientation, std::move(classes), std::move(files), std::move(labels));
}

}  // namespace mlo
