// References for curved games, where there is no closed form: autograd through the steps that were
// taken, replayed as functions on graph tensors; and the implicit function theorem at lower levels
// solved by Newton's method.
#pragma once

#include "mlo/hypergradient/method.h"
#include "reference.h"

namespace mlo::testing {

struct ReplayOptions {
  std::vector<Setup> optimizers;                          // by level
  std::vector<double> clip_norms = {};                    // by level; empty: no clipping
  std::function<double(std::size_t step)> schedule = {};  // the same for all levels
};

struct Replayed {
  Vector derivative;  ///< dL_u/dθ_u through the steps
  double drift = 0;   ///< how far the replayed values end up from the engine's: must be rounding
};
/// Takes the steps of the log again, from the parameters `start`, up to a step of u. The first
/// `mark` are history; through the others autograd differentiates, wherever the level responds to
/// u.
Replayed replay(const Game& game, std::size_t u, const std::vector<Tensors>& start,
                std::size_t mark, const ReplayOptions& options);
/// Copies of all parameters, to start a replay from.
std::vector<Tensors> copied(const std::vector<Tensors>& parameters);

/// ∂L_k/∂θ_j and ∂²L_k/∂θ_i∂θ_j at x, by autograd.
Vector slope(const Game& game, std::size_t k, std::size_t j, const Vector& x);
Matrix bend(const Game& game, std::size_t k, std::size_t i, std::size_t j, const Vector& x);
/// x with the levels that respond to u at the solution of ∂_k L_k = 0 for the rest of x. Throws if
/// Newton's method fails.
Vector settled(const Game& game, std::size_t u, Vector x);
/// dL_u/dθ_u at a settled x, by the implicit function theorem on all responding levels together.
Vector implicit_derivative(const Game& game, std::size_t u, const Vector& x);
double loss_at(const Game& game, std::size_t k, const Vector& x);

/// A method of the user's with a fault: what it subtracts is `factor` times what it should be.
std::unique_ptr<Method> faulty(std::unique_ptr<Method> method, double factor);

}  // namespace mlo::testing
