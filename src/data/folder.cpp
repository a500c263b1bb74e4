#include "mlo/data/image_files.h"
#include "mlo/data/images.h"
#include "text.h"

#include <algorithm>

namespace mlo {
namespace {

namespace fs = std::filesystem;

// Of a link that leads nowhere or in a circle it is not: opening it will say so.
bool is_folder(const fs::directory_entry& entry) {
  std::error_code unknown;
  return entry.is_directory(unknown);
}

bool hidden(const fs::path& path) { return path.filename().string().starts_with("."); }

// In the order of their names, whatever the file system's is.
template <class Wanted>
std::vector<fs::path> entries(const fs::path& folder, Wanted&& wanted) {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator entry(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error))
    if (!hidden(entry->path()) && wanted(*entry)) found.push_back(entry->path());
  require<Error>(!error,
                 "{}: the folder cannot be read: {}; check its name, and that it may be read",
                 folder.string(), error.message());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

std::shared_ptr<const ImageSet> folder_images(const fs::path& folder, ImageFolderOptions options) {
  require(options.channels == 1 || options.channels == 3,
          "ImageFolderOptions::channels = {}; it must be 1 (grey) or 3 (colour)", options.channels);
  std::vector<std::string> classes;
  std::vector<fs::path> files;
  std::vector<int64_t> labels;
  for (const fs::path& inside : entries(folder, is_folder)) {
    const auto label = static_cast<int64_t>(classes.size());
    classes.push_back(inside.filename().string());
    const std::size_t before = files.size();
    for (const fs::path& file : entries(inside, [](const fs::directory_entry& e) {
           return !is_folder(e) && named_as_image(e.path());
         })) {
      if (options.on_bad_image) {
        try {
          read_image(file, options.channels, options.orientation);
        } catch (const Error& error) {
          options.on_bad_image(error.what());
          continue;
        }
      }
      files.push_back(file);
      labels.push_back(label);
    }
    require<Error>(
        files.size() > before,
        "{}: a class without a readable JPEG or PNG image; put some in, or remove the folder",
        inside.string());
  }
  require<Error>(!classes.empty(),
                 "{}: holds no folders, expected one folder a class; put the JPEG or PNG images of "
                 "each class into a folder of its name",
                 folder.string());
  return file_images(std::move(files), std::move(labels), std::move(classes), options.channels,
                     options.orientation);
}

}  // namespace mlo
