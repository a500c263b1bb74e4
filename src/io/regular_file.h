#pragma once

#include "io/descriptor.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace mlo {

/// The one way in which this library opens what it reads: regular files only, because a pipe may
/// block for ever and a device never end. No more is read than the file held when it was opened.
class RegularFile {
 public:
  /// Throws. `what` completes a sentence that begins with the file's name; `cure` is the advice.
  using Fail = std::function<void(const std::string& what, const std::string& cure)>;

  RegularFile(const std::filesystem::path& path, Fail fail);
  uint64_t size() const { return size_; }
  uint64_t left() const { return left_; }
  /// `count` bytes, or fails.
  void read(void* bytes, uint64_t count);

 private:
  Fail fail_;
  Descriptor file_;
  uint64_t size_ = 0, left_ = 0;
};

/// The bytes of a regular file. Throws mlo::Error naming the file for another, one of more than
/// `most` bytes, or that cannot be read.
std::string read_file(const std::filesystem::path& file, uint64_t most);

}  // namespace mlo
