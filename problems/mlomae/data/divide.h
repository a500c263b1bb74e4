#pragma once

#include "mlomae/data/dataset.h"

namespace mlomae {

/// Divides the images, each class alike: keeps some for testing where there is no test part, leaves
/// out what `data.limit` does not let in, and holds out those that the masker is trained on.
void divide(const Settings::Data& settings, Dataset& data);

}  // namespace mlomae
