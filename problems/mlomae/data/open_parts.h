#pragma once

#include "mlomae/data/dataset.h"
#include "mlomae/data/folder.h"

#include <vector>

namespace mlomae {

/// Finds `data.path` and `data.unlabelled`, and reads what they hold into `data`: name, format,
/// train and test, whose classes are made the same, unlabelled. Returns the folders of image files
/// among them, whose images may be of any sizes.
std::vector<FolderImages> open_parts(const Settings& settings, Dataset& data);

}  // namespace mlomae
