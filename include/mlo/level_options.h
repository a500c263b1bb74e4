#pragma once

#include "mlo/data/source.h"
#include "mlo/hypergradient/method.h"
#include "mlo/optim/optimizers.h"
#include "mlo/optim/schedule.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// What a level's loss computes in. bfloat16: under LibTorch's autocast, matrix products in
/// bfloat16; parameters, optimizer and all arithmetic of hypergradients stay float32. The loss must
/// come out in float32.
enum class Precision { float32, bfloat16 };

/// How one level runs, and how the levels above differentiate through it.
struct LevelOptions {
  /// Needed. `sgd(…)`, `adam(…)`, `adamw(…)`, or `use(…)` for any other torch::optim::Optimizer.
  OptimizerFactory optimizer = {};
  /// Where batches come from; nothing: the loss is called with an empty batch.
  Data data = {};
  /// Own steps for each step of the levels that wait for this one.
  int64_t unroll = 1;
  /// How the levels above differentiate through this one. Null: `one_step()`.
  std::unique_ptr<Method> best_response = nullptr;
  /// Factor on the learning rates; null: constant.
  Schedule schedule = {};
  /// Own steps before the levels above begin: a level's first wait lasts at least this long.
  int64_t warmup_steps = 0;
  /// Micro-batches a step: the loss, and every derivative of it, is the mean over them.
  int64_t accumulate = 1;
  /// Largest norm of the gradient over all parameters; larger ones are scaled down. 0: no clipping.
  double clip_norm = 0.0;
  /// For parameters in float32 only. Methods that take differences of the loss are refused at
  /// bfloat16: its rounding drowns them.
  Precision precision = Precision::float32;
  /// Levels whose parameters the loss depends on. Not given: found by evaluating the first batch.
  /// Given: the authority, and checked.
  std::optional<std::vector<std::string>> reads = std::nullopt;
  /// Levels whose values the loss uses as constants: no derivative is taken with respect to them.
  /// Those below take their steps first all the same.
  std::vector<std::string> constant = {};
  /// Levels that stand below this one, where the order of registration does not say so.
  std::vector<std::string> below = {};
  /// One of several top levels. If no level says so, the last one is the top.
  bool top = false;

  void validate(const std::string& level) const;
};

}  // namespace mlo
#pragma GCC visibility pop
