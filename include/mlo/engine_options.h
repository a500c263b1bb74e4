#pragma once

#include "mlo/io/file_sink.h"

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>

#pragma GCC visibility push(default)
namespace mlo {

struct EarlyStopping {
  /// "level.name" of a number that a `validate()` returns; empty: no early stopping
  std::string metric = {};
  int64_t patience = 5;  ///< validations without improvement before the run stops
  enum class Mode { min, max } mode = Mode::min;
  double min_delta = 0.0;  ///< smaller changes are no improvement
};

struct EngineOptions {
  int64_t steps = 1000;  ///< updates of the top level (of the first, if there are several), counted
                         ///< over resumed runs
  int64_t validate_every = 0;                                ///< steps between validations; 0: none
  double seconds = std::numeric_limits<double>::infinity();  ///< stop after this long
  uint64_t seed = 0;  ///< of every random stream: (seed, level, step, micro-batch)
  EarlyStopping early_stopping = {};
  /// file saved when a run returns, for whatever reason (not when it throws), and …
  std::filesystem::path checkpoint = {};
  int64_t checkpoint_every = 0;  ///< … every so many steps; 0: only at the end
  SinkFactory checkpoint_sink = atomic_file;
  bool profile = false;  ///< seconds and peak memory of each level

  void validate() const;
};

}  // namespace mlo
#pragma GCC visibility pop
