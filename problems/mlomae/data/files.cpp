#include "mlomae/data/files.h"

#include "mlomae/message.h"

#include <mlo/data/image_file.h>
#include <mlo/data/image_files.h>

#include <algorithm>
#include <set>

namespace mlomae {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHidden = "with a dot before the name";

std::string kind_of(const fs::path& file, bool regular) {
  if (!regular) return "no regular file";
  std::string extension = file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension.empty() ? "without extension" : extension;
}

}  // namespace

FolderContent content_of(const fs::path& folder) {
  std::error_code error;
  FolderContent content;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const fs::path& path = entry->path();
    std::error_code unknown;  // a link to nowhere, or to itself
    const fs::file_status status = entry->status(unknown);
    if (path.filename().string().starts_with(".")) {
      // What systems leave everywhere (.DS_Store) is nobody's loss, an image may be one.
      if (fs::is_regular_file(status) && mlo::named_as_image(path)) ++content.files.others[kHidden];
      continue;
    }
    if (fs::is_directory(status))
      content.folders.push_back(path);
    else if (fs::is_regular_file(status) && mlo::named_as_image(path))
      content.files.images.push_back(path);
    else
      ++content.files.others[kind_of(path, fs::is_regular_file(status))];
  }
  require<mlo::Error>(!error,
                      "folder '{}' cannot be read: {}; check that it may be read, or move it "
                      "elsewhere",
                      folder.string(), error.message());
  std::sort(content.folders.begin(), content.folders.end());
  std::sort(content.files.images.begin(), content.files.images.end());
  return content;
}

FoundFiles files_beneath(const fs::path& folder) {
  FoundFiles all;
  std::set<fs::path> seen;
  std::vector<fs::path> waiting = {folder};
  while (!waiting.empty()) {
    const fs::path here = waiting.back();
    waiting.pop_back();
    std::error_code error;
    const fs::path canonical = fs::canonical(here, error);
    if (!error && !seen.insert(canonical).second) continue;
    FolderContent content = content_of(here);
    all.images.insert(all.images.end(), content.files.images.begin(), content.files.images.end());
    for (const auto& [kind, count] : content.files.others) all.others[kind] += count;
    waiting.insert(waiting.end(), content.folders.rbegin(), content.folders.rend());
  }
  std::sort(all.images.begin(), all.images.end());
  return all;
}

std::string counted(const std::map<std::string, int64_t>& others) {
  constexpr std::size_t kShown = 8;
  std::vector<std::pair<std::string, int64_t>> kinds(others.begin(), others.end());
  std::stable_sort(kinds.begin(), kinds.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text;
  for (std::size_t i = 0; i < std::min(kinds.size(), kShown); ++i)
    text += message("{}{} {}", i == 0 ? "" : ", ", kinds[i].second, kinds[i].first);
  if (kinds.size() > kShown) text += " and others";
  return text;
}

}  // namespace mlomae
