#pragma once

#include "mlo/error.h"
#include "mlo/io/file_sink.h"
#include "text.h"

namespace mlo {

/// A sink of the user's may be of any kind, but not none.
inline std::unique_ptr<FileSink> open_sink(const SinkFactory& sink,
                                           const std::filesystem::path& path) {
  auto file = sink ? sink(path) : nullptr;
  require<CheckpointError>(file != nullptr,
                           "{}: the sink to write it with is null; return one, as "
                           "mlo::atomic_file does",
                           path.string());
  return file;
}

}  // namespace mlo
