#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace mlomae {

/// Files by what they are taken for. Names that begin with a dot are not read, and of them only
/// images are counted; links are followed.
struct FoundFiles {
  /// JPEG and PNG by their names, in the order of their paths
  std::vector<std::filesystem::path> images;
  /// number of those that are not read, by extension (".webp"), or what else they are
  std::map<std::string, int64_t> others;
};

/// A folder's own files, and the folders in it, in the order of their names. Throws mlo::Error
/// naming what cannot be read.
struct FolderContent {
  FoundFiles files;
  std::vector<std::filesystem::path> folders;
};
FolderContent content_of(const std::filesystem::path& folder);

/// All files beneath a folder, whatever their depth; each folder once, also where links go in
/// circles.
FoundFiles files_beneath(const std::filesystem::path& folder);

/// "12 .webp, 3 .bmp", the most frequent first; empty if there are none.
std::string counted(const std::map<std::string, int64_t>& others);

}  // namespace mlomae
