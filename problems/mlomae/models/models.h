#pragma once

#include "mlomae/models/head.h"
#include "mlomae/models/masked_autoencoder.h"
#include "mlomae/models/masker.h"

namespace mlomae {

/// The networks of a run; those its method has no use for are null.
struct Models {
  MaskedAutoencoder mae = nullptr;
  Masker masker = nullptr;
  Head head = nullptr;
};

}  // namespace mlomae
