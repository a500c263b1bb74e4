#pragma once

#include "mlomae/levels/reconstruct.h"
#include "mlomae/run/run_directory.h"
#include "mlomae/run/snapshot.h"
#include "mlomae/training/pretraining.h"

#include <mlo/callback.h>

#include <memory>

namespace mlomae {

/// A cheap look at encoder and masker while they train. Test images are not touched.
/// "knn": accuracy of k-nearest neighbours on class tokens, of up to 500 held-out images among up
/// to 1,000 training ones.
/// "found", where there are maps and a masker: of up to 500 held-out images, how much of the map is
/// under the masker's k heaviest patches, k the number of patches that the map covers by half or
/// more: |heaviest ∩ covered| / k. Chance is k / N. "weight_found": the part of all weight (as if
/// all patches were masked) that is on those patches.
Monitor monitor_of(const Settings& settings, const Dataset& dataset, const Models& models);

/// Masks and reconstructions of some images, under draws of their own: taking one changes nothing
/// in a run. `images`: [n, C, S, S], normalized.
Snapshot take_snapshot(const Settings& settings, const Dataset& dataset, const Models& models,
                       const at::Tensor& images, int64_t step);
/// Images for it: the first of each class in turn, of the held-out images (of the training images,
/// where nothing is held out).
at::Tensor snapshot_images(const Dataset& dataset, int64_t count);

/// Writes the run's snapshots before the first step and as often as the settings say, and into
/// TensorBoard's folder the masked images.
std::unique_ptr<mlo::Callback> snapshots(const Settings& settings, const Dataset& dataset,
                                         const Models& models, const RunDirectory& directory);

}  // namespace mlomae
