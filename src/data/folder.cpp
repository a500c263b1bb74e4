#include "data/fingerprint.h"
#include "mlo/data/images.h"
#include "mlo/error.h"

#include <algorithm>
#include <fstream>
#include <mutex>

namespace mlo {
namespace {

namespace fs = std::filesystem;

class FolderImages final : public ImageSet {
 public:
  FolderImages(int64_t channels, std::vector<std::string> classes, std::vector<fs::path> files, std::vector<int64_t> labels)
      : channels_(channels), classes_(std::move(classes)), files_(std::move(files)), labels_(std::move(labels)) {}
  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  int64_t channels() const override { return channels_; }
  const std::vector<std::string>& classes() const override { return classes_; }
  int64_t label(int64_t i) const override { return labels_[static_cast<std::size_t>(i)]; }
  at::Tensor image(int64_t i) const override { return read_image(files_[static_cast<std::size_t>(i)], channels_); }

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
                     " classes, " + std::to_string(channels_) + " channels";
    });
    return fingerprint_;
  }

 private:
  int64_t channels_;
  std::vector<std::string> classes_;
  std::vector<fs::path> files_;
  std::vector<int64_t> labels_;
  mutable std::once_flag summed_up_;
  mutable std::string fingerprint_;
};

bool is_image(const fs::path& file) {
  std::string extension = file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

bool hidden(const fs::path& path) { return path.filename().string().starts_with("."); }

// In the order of their names, whatever the file system's is.
template <class Wanted>
std::vector<fs::path> entries(const fs::path& folder, Wanted&& wanted) {
  std::error_code error;
  fs::directory_iterator all(folder, error);
  if (error)
    throw Error("folder '" + folder.string() + "' cannot be read: " + error.message() +
                "; check its name, and that it may be read");
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : all)
    if (!hidden(entry.path()) && wanted(entry)) found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

std::shared_ptr<const ImageSet> folder_images(const fs::path& folder, ImageFolderOptions options) {
  if (options.channels != 1 && options.channels != 3)
    throw ConfigError("ImageFolderOptions::channels is " + std::to_string(options.channels) +
                      "; expected 1 (grey) or 3 (colour)");
  std::vector<std::string> classes;
  std::vector<fs::path> files;
  std::vector<int64_t> labels;
  for (const fs::path& inside : entries(folder, [](const fs::directory_entry& e) { return e.is_directory(); })) {
    const auto label = static_cast<int64_t>(classes.size());
    classes.push_back(inside.filename().string());
    const std::size_t before = files.size();
    for (const fs::path& file :
         entries(inside, [](const fs::directory_entry& e) { return !e.is_directory() && is_image(e.path()); })) {
      if (options.on_bad_image) {
        try {
          read_image(file, options.channels);
        } catch (const Error& error) {
          options.on_bad_image(error.what());
          continue;
        }
      }
      files.push_back(file);
      labels.push_back(label);
    }
    if (files.size() == before)
      throw Error("folder '" + inside.string() + "' is a class without a readable JPEG or PNG image; put some in, or remove it");
  }
  if (classes.empty())
    throw Error("folder '" + folder.string() + "' holds no folders; expected one folder a class, with JPEG or PNG images in it");
  return std::make_shared<FolderImages>(options.channels, std::move(classes), std::move(files), std::move(labels));
}

}  // namespace mlo
