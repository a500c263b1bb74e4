#pragma once

#include "mlo/batch.h"
#include "mlo/optim/step_derivative.h"
#include "mlo/tensors.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace mlo {
struct FrozenValues;  // the library's own, and hidden in it: a Probe puts them into place
}  // namespace mlo

#pragma GCC visibility push(default)
namespace mlo {

/// One evaluation of a loss, complete enough to be repeated, and its value, which a repetition is
/// held against.
struct Draw {
  Batch batch;
  uint64_t seed = 0;  ///< of its random stream
  Tensors choices;    ///< the discrete ones that were taken (`mlo::replayed`)
  /// Before the evaluation: the buffers of the levels' modules and the parameters that no level
  /// trains. Copies, shared between draws while the values stay the same; empty where there are
  /// none, and in steps that are not recorded.
  Tensors untrained;
  double loss = 0.0;
};

/// One own step of a level as the levels above differentiate it: what was drawn, which values were
/// read, what the optimizer was given and did. Kept only as far as the level's method needs it.
struct StepRecord {
  int64_t step = 0;         ///< own steps taken before this one
  std::vector<Draw> draws;  ///< one for each micro-batch; the loss is their mean
  Tensors gradient;         ///< what the optimizer was given: after hooks and clipping
  /// for each draw ∇_θ L with its graph; empty unless the method keeps graphs
  std::vector<Tensors> kept;
  /// more than one level's sweep comes by: kept graphs must outlive the first
  bool shared = false;
  /// of the optimizer's update; null unless the method needs it
  std::shared_ptr<const StepDerivative> derivative;
  std::vector<double> learning_rates;  ///< of each parameter; empty unless the method needs them

  /// Values as this step read them, by level index (own level: before the step); null for levels it
  /// does not read. Copies are made only where values have changed since.
  std::vector<std::shared_ptr<const FrozenValues>> values;
  std::vector<char> modes;  ///< train (1) or eval (0) of each module that the losses run
  /// attention ran through a kernel that can be differentiated twice
  bool guarded_attention = false;
  int threads = 0;  ///< LibTorch's own, within an operation
};

}  // namespace mlo
#pragma GCC visibility pop
