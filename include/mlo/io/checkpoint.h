#pragma once

#include "mlo/state.h"

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>

namespace mlo {

/// Where the bytes of a file being written go. `path` is replaced only by `commit`, atomically; a sink destroyed before
/// leaves what was there untouched.
class FileSink {
 public:
  virtual ~FileSink() = default;
  /// Throw CheckpointError naming the file and the system's reason.
  virtual void write(const void* bytes, std::size_t count) = 0;
  virtual void commit() = 0;
};
using SinkFactory = std::function<std::unique_ptr<FileSink>(const std::filesystem::path& path)>;

/// A temporary file beside `path` (its name and ".tmp"), flushed to the disk (fsync of file and folder) and renamed over
/// it. What a killed run leaves there is taken over by the next save; two savers of one file at a time: CheckpointError.
std::unique_ptr<FileSink> atomic_file(const std::filesystem::path& path);

/// One file: magic, format version, a JSON manifest, the tensors' bytes, and a CRC-32 of each part. Little-endian; tensors
/// are stored contiguous, as on the CPU, and come back there, every element type but quantized ones. Numbers and bytes come
/// back to the bit. Tensors that are sparse or hold no memory are refused, before anything is written.
void write_checkpoint(const std::filesystem::path& path, const State& state, const SinkFactory& sink = atomic_file);
/// Throws CheckpointError for a file that is missing, truncated, damaged or from a newer version; nothing is returned
/// then.
State read_checkpoint(const std::filesystem::path& path);

}  // namespace mlo
