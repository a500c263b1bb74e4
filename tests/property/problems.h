// Random specifications of engines, and the same training written by hand on graph tensors: every
// hypergradient is autograd through the steps, every step a function (optim/functional_update.h).
#pragma once

#include "mlo/mlo.h"
#include "optim/functional_update.h"

#include <memory>
#include <string>
#include <vector>

namespace mlo::testing {

/// One level of a specification. Levels below the tops read lower levels and tops, so none is
/// nested; sometimes the lowest two are a game of their own.
struct LevelSpec {
  std::vector<std::size_t> reads;     ///< with derivatives
  std::vector<std::size_t> constant;  ///< values only
  bool top = false, unused = false;
  double dropout = 0.0;
  enum class Choice { none, largest, random } choice = Choice::none;  ///< under mlo::replayed
  Setup optimizer = {};
  bool fused = false;  ///< mlo::sgd, adam, adamw; else LibTorch's own class
  int64_t unroll = 1, accumulate = 1;
  double clip_norm = 0.0;
  enum class Rate { constant, warmup, decay, cosine } schedule = Rate::constant;
  enum class How {
    one_step_kept,
    one_step_fresh,
    unrolled,
    unrolled_kept
  } method = How::one_step_kept;

  bool is_unrolled() const { return method == How::unrolled || method == How::unrolled_kept; }
};

struct Spec {
  uint64_t seed = 0;
  std::vector<LevelSpec> levels;
  std::string to_string() const;
};
Spec random_spec(uint64_t seed);

/// The numbers of a specification, its live parameters, and what the engine's own evaluations drew.
class World {
 public:
  explicit World(Spec spec);

  const Spec spec;
  std::vector<Tensors> parameters;  // by level: two tensors, then the unused one

  struct Drawn {
    at::Tensor generator, choice;
  };
  std::vector<std::vector<Drawn>> recent;  // by level: since its last step
  std::vector<std::vector<std::vector<Drawn>>>
      steps;  // by level and own step: one for each micro-batch

  std::string name(std::size_t k) const {
    return (spec.levels[k].top ? "top" : "low") + std::to_string(k);
  }
  /// The i-th batch of a level; micro-batches have different numbers of rows.
  at::Tensor rows(std::size_t k, int64_t i) const;
  Schedule schedule(std::size_t k) const;
  /// L_k. `drawn.choice` is used if it is there, else made.
  at::Tensor loss(std::size_t k, const std::vector<Tensors>& theta, const at::Tensor& rows,
                  Drawn& drawn) const;

 private:
  Tensors mix_, turn_, data_;
};

/// `factor`: on what every method subtracts; 1 is right.
std::unique_ptr<Engine> engine_of(const std::shared_ptr<World>& world, double factor = 1.0);

/// The training written by hand.
class ByHand {
 public:
  explicit ByHand(const World& world);
  /// One step of each top level, with all below. Needs the engine's records of what it drew.
  void cycle();
  /// dL_u/dθ_u after the steps below u, and the part of it that does not go through them.
  struct Derivative {
    Tensors total, direct;
  };
  Derivative hypergradient(std::size_t u);

  std::vector<Tensors> values;

 private:
  void begin();
  void advance(std::size_t u);
  void own_step(std::size_t k);
  void update(std::size_t k, const Tensors& gradient);
  at::Tensor loss(std::size_t k, const std::vector<Tensors>& theta,
                  const std::vector<World::Drawn>& drawn);

  const World& world_;
  std::vector<FunctionalUpdate> updates_;
  std::vector<int64_t> taken_, batches_;
  std::vector<char> stepped_;
};

}  // namespace mlo::testing
