#pragma once

#include "mlomae/data/dataset.h"
#include "mlomae/models/head.h"
#include "mlomae/models/masked_autoencoder.h"

#include <mlo/callback.h>
#include <mlo/optim/optimizers.h>

#include <memory>

namespace mlomae {

struct FinetuneOptions {
  double epochs = 20.0;
  int64_t batch = 64;
  double lr = 1e-3;
  double weight_decay = 0.05;  ///< of matrices
  double warmup = 0.05;        ///< part of the steps
  /// of the learning rate, from each block to the one below it; 1: none
  double layer_decay = 0.75;
  double label_smoothing = 0.0;
  double dropout = 0.1;  ///< before the head's linear layer
  uint64_t seed = 0;     ///< of the head, the batches and dropout
};

struct Finetuned {
  Head head = nullptr;    ///< trained with the encoder
  double accuracy = 0.0;  ///< on the test images, with the last weights
  int64_t steps = 0;
  double seconds = 0.0;
};
/// Trains the encoder with a fresh head on all training images (AdamW, warm-up and cosine), and
/// tests. Changes `mae`; from fresh weights it is training from scratch. `callback` (or null)
/// watches.
Finetuned finetune(MaskedAutoencoder mae, const Dataset& dataset,
                   const mlo::Augmentation& augmentation, const FinetuneOptions& options,
                   std::shared_ptr<mlo::Callback> callback = nullptr);

/// AdamW with a learning rate of lr · decay^(depth + 1 − layer): the embeddings are layer 0, block
/// i is layer i + 1, the last norm and the head layer depth + 1 (BEiT, MAE).
mlo::OptimizerFactory layerwise_adamw(MaskedAutoencoder mae, Head head,
                                      const FinetuneOptions& options);

}  // namespace mlomae
