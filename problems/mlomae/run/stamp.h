#pragma once

#include "mlomae/config/settings.h"

#include <mlo/data/source.h>
#include <mlo/state.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace mlomae {

/// What a checkpoint says of how it came about, beside the reconstruction level's place in its
/// data.
struct Stamp {
  Settings settings;
  std::string images;  ///< Dataset::fingerprint
};
/// The same batches; what it saves has the stamp in it.
std::unique_ptr<mlo::BatchSource> stamped(std::unique_ptr<mlo::BatchSource> source,
                                          const Stamp& stamp);
/// Of a checkpoint's state; nothing for one that was saved without.
std::optional<Stamp> stamp_of(const mlo::State& state);

/// Whether a run may go on from a checkpoint with these settings on these images. Throws
/// mlo::ConfigError that names each setting that decides what is trained and differs, unless its
/// key is in `allowed` ("data.path" allows other images). Returns a sentence for each difference
/// that was allowed.
std::vector<std::string> compare(const Stamp& checkpoint, const Stamp& now,
                                 const std::vector<std::string>& allowed);

}  // namespace mlomae
