#pragma once

#include "mlo/io/file_sink.h"
#include "mlo/state.h"

#include <filesystem>

#pragma GCC visibility push(default)
namespace mlo {

/// One file: magic, format version, a JSON manifest, the tensors' bytes, and a CRC-32 of each part.
/// Little-endian; tensors are stored contiguous, as on the CPU, and come back there, every element
/// type but quantized ones. Numbers and bytes come back to the bit. Tensors that are sparse or hold
/// no memory are refused, before anything is written.
void write_checkpoint(const std::filesystem::path& path, const State& state,
                      const SinkFactory& sink = atomic_file);
/// Throws CheckpointError for a file that is missing, truncated, damaged or from a newer version;
/// nothing is returned then.
State read_checkpoint(const std::filesystem::path& path);

}  // namespace mlo
#pragma GCC visibility pop
