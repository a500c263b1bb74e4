#pragma once

#include "mlo/step_record.h"
#include "mlo/tensors.h"

#include <memory>
#include <string>

namespace mlo {
class Level;  // these three are the library's own, and hidden in it
class Levels;
class Sweep;
}  // namespace mlo

#pragma GCC visibility push(default)
namespace mlo {

/// Whether products are taken where the level stood before its last step (exact for unroll 1), or
/// where it stands now.
enum class EvaluationPoint { before_step, after_step };

/// Evaluates a lower level's loss again, as a transaction: from construction to destruction the
/// parameters of all levels the recorded step read, buffers, frozen parameters and train/eval modes
/// are those of that step, the attention kernel is one that can be differentiated twice if the
/// method needs that (`Needs::second_order`) and this loss does; every evaluation replays the
/// step's batch, random draws and discrete choices, and must find the step's loss (LossError). The
/// destructor puts everything back bit for bit, also while an exception passes. One probe at a
/// time.
class Probe {
 public:
  ~Probe();
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  const std::string& level_name() const;
  /// θ_k: the level's live parameters, at the recorded values plus the last shift.
  const Tensors& parameters() const;
  const StepRecord& record() const;
  /// How often a sweep has come by this level, this visit included.
  int64_t visits() const;

  /// Sets θ_k to recorded + epsilon·direction, until the next shift or the end of the probe. 0
  /// gives the recorded bits.
  void shift(double epsilon, const Tensors& direction);

  /// ∂L_k/∂t for each t of `wrt`, mean over the micro-batches; an unused t gives an undefined
  /// tensor. First order.
  Tensors gradient(const Tensors& wrt);
  /// ∇_θ L_k of one micro-batch with its graph, to be differentiated once more with respect to θ_k
  /// and `targets`: the graph of the step itself where it was kept, else made by evaluating the
  /// loss again. Undefined: not used.
  Tensors gradient_graph(std::size_t micro_batch, const Tensors& targets);
  /// ∂(∇_θ L·v)/∂t for each t of `wrt` by dual numbers (see reverse_over_forward_oracle), mean over
  /// the micro-batches: one forward and one backward each. Throws UnsupportedError naming an
  /// operation that this is not right for.
  Tensors forward_mode_product(const Tensors& v, const Tensors& wrt);
  /// The products of the problem's own `AnalyticDerivatives`, mean over the micro-batches. Throws
  /// UnsupportedError if it has none.
  Tensors analytic_product(const Tensors& v, const Tensors& wrt);

  /// Counted for the level by the oracle that makes them; the probe counts its own passes.
  void count_hessian_product();
  void count_mixed_product();
  void count_backward();

 private:
  friend class Sweep;  // made by Visit::probe
  Probe(Levels& levels, Level& level, const StepRecord& record, EvaluationPoint point,
        bool second_order);

  struct Body;
  std::unique_ptr<Body> body_;
};

}  // namespace mlo
#pragma GCC visibility pop
