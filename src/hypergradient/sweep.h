#pragma once

#include "level/level.h"
#include "mlo/graph.h"
#include "mlo/hypergradient/method.h"

#include <algorithm>
#include <memory>
#include <vector>

namespace mlo {

/// Whether a level is in a list of levels.
inline bool contains(const std::vector<std::size_t>& list, std::size_t item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

/// The adjoint sweep for one upper level u: reverse mode on the graph of reads.
///
///     a_j = ∂L_u/∂θ_j for the responding levels u reads, g = ∂L_u/∂θ_u     one backward, by the
///     caller visit k when no unvisited level reads it:  z = S_k(a_k);  a_j ← a_j −
///     (∂²L_k/∂θ_j∂θ_k) z for all j it reads total derivative = g + a_u
///
/// Each level is visited once, whatever the number of paths.
class Sweep {
 public:
  Sweep(Levels& levels, const Graph& graph, std::size_t upper);

  /// What L_u is to be differentiated by: θ_u, then the parameters of the responding levels it
  /// reads.
  const Tensors& wrt() const { return wrt_; }
  /// Levels in the order of their visits.
  const std::vector<std::size_t>& order() const { return order_; }
  /// The parameters of other levels that the visit at level k takes products for.
  const Tensors& targets(std::size_t k) const;
  /// From ∂L_u/∂wrt (undefined: unused) to dL_u/dθ_u, in float32 or wider; undefined where nothing
  /// depends on a parameter. Every responding level has taken steps since u's last one, and has
  /// recorded those its method needs.
  Tensors total_derivative(const Tensors& gradient);

  /// A probe of a step that no visit stands behind.
  static std::unique_ptr<Probe> probe(Levels& levels, Level& level, const StepRecord& record,
                                      EvaluationPoint point, bool second_order);

 private:
  class VisitedLevel;
  struct Stop {
    std::size_t level;
    Tensors targets;
    std::vector<std::pair<std::size_t, std::size_t>> places;  // of each target: level and parameter
  };

  Levels& levels_;
  const std::size_t upper_;
  std::vector<std::size_t> order_;
  std::vector<std::size_t> direct_;  // responding levels that u itself reads, in the order of wrt
  std::vector<Stop> stops_;
  Tensors wrt_;
};

}  // namespace mlo
