#include "mlo/data/image_files.h"

#include "data/fingerprint.h"
#include "text.h"

#include <algorithm>
#include <fstream>
#include <mutex>

namespace mlo {
namespace {

namespace fs = std::filesystem;

class FileImages final : public ImageSet {
 public:
  FileImages(int64_t channels, Orientation orientation, std::vector<std::string> classes,
             std::vector<fs::path> files, std::vector<int64_t> labels)
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
        const auto bytes = static_cast<uint64_t>(
            fs::file_size(files_[i], error));  // of what is no file: an error's number
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
      fingerprint_ = message("{} files {}, {} classes, {} channels{}", files_.size(), sum.text(),
                             classes_.size(), channels_,
                             orientation_ == Orientation::upright ? ", upright" : "");
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

}  // namespace

std::shared_ptr<const ImageSet> file_images(std::vector<fs::path> files,
                                            std::vector<int64_t> labels,
                                            std::vector<std::string> classes, int64_t channels,
                                            Orientation orientation) {
  require(channels == 1 || channels == 3,
          "file_images: channels = {}; it must be 1 (grey) or 3 (colour)", channels);
  require(files.size() == labels.size(), "file_images: {} labels for {} files; give one a file",
          labels.size(), files.size());
  for (const int64_t label : labels)
    require(label >= 0 && label < static_cast<int64_t>(classes.size()),
            "file_images: the label {} with {} classes; it must be at least 0, and less than the "
            "number of classes",
            label, classes.size());
  return std::make_shared<FileImages>(channels, orientation, std::move(classes), std::move(files),
                                      std::move(labels));
}

}  // namespace mlo
