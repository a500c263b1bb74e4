#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>

#pragma GCC visibility push(default)
namespace mlo {

/// Where the bytes of a file being written go. `path` is replaced only by `commit`, atomically; a
/// sink destroyed before leaves what was there untouched.
class FileSink {
 public:
  virtual ~FileSink() = default;
  /// Throw CheckpointError naming the file and the system's reason.
  virtual void write(const void* bytes, std::size_t count) = 0;
  virtual void commit() = 0;
};
using SinkFactory = std::function<std::unique_ptr<FileSink>(const std::filesystem::path& path)>;

/// A temporary file beside `path` (its name and ".tmp"), flushed to the disk (fsync of file and
/// folder) and renamed over it. What a killed run leaves there is taken over by the next save; two
/// savers of one file at a time: CheckpointError.
std::unique_ptr<FileSink> atomic_file(const std::filesystem::path& path);

}  // namespace mlo
#pragma GCC visibility pop
