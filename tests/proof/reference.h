// Closed forms for quadratic games, in Eigen, by ways that share nothing with the library's sweep.
#pragma once

#include "optim/functional_update.h"
#include "quadratic.h"

namespace mlo::testing {

/// Levels that respond to u: below it (and no top), read by it, directly or not, and reading it,
/// directly or not. By transitive closure.
std::vector<char> responds(const Shape& shape, std::size_t u);
/// True if some of the responding levels read each other in a circle: a strongly connected
/// component without u.
bool is_nested(const Shape& shape, std::size_t u);

/// dL_u/dθ_u at x, all levels below u at their optima: the conditions ∂_k L_k = 0 of all levels
/// below u as one linear system for dθ/dθ_u (implicit function theorem), then the chain rule.
Vector total_derivative(const Game& game, std::size_t u, const Vector& x);

/// What the comparisons must notice: the wrong sign at each path's last level, the first path left
/// out.
enum class Fault { none, sign, lost_path };

/// A method's own formula, as the sum over all paths u → k₁ → … → k_m → u of reads of
///     (−1)ᵐ a(k₁)ᵀ S(k₁) ∂²L(k₁)/∂θ(k₁)∂θ(k₂) S(k₂) … ∂²L(k_m)/∂θ(k_m)∂θ_u,
/// S(k) being what the method has in the place of the inverse Hessian: −S(k) is the response to a
/// constant added to ∇L_k.
Vector path_sum(const Game& game, std::size_t u, const Vector& x, const std::vector<Matrix>& s,
                Fault fault = Fault::none);
/// The same with derivatives from elsewhere.
struct Derivatives {
  std::function<Vector(std::size_t j)> slope;                 ///< ∂L_u/∂θ_j
  std::function<Matrix(std::size_t k, std::size_t j)> mixed;  ///< ∂²L_k/∂θ_j∂θ_k
};
Vector path_sum(const Shape& shape, std::size_t u, const Derivatives& derivatives,
                const std::vector<Matrix>& s, Fault fault = Fault::none);
/// The adjoint sweep in dense matrices, visiting in the given order, right or wrong.
Vector dense_sweep(const Game& game, std::size_t u, const Vector& x, const std::vector<Matrix>& s,
                   const Indices& order);

/// α Σ_{j=0..K} (I − αH)ʲ.
Matrix neumann_matrix(const Matrix& h, double alpha, int64_t iterations);
/// −dθ_T/dp of the optimizer's last K steps, where p is added to the level's gradient at each of
/// them: forward mode in dense matrices through the recorded steps (θ, g) of a level with Hessian
/// h. K = 1: A of the last step.
Matrix step_response(const Setup& setup, const Matrix& h, const std::vector<Game::Step>& steps,
                     std::size_t last);

/// The steps of one level in the log, oldest first.
std::vector<Game::Step> steps_of(const Game& game, std::size_t level);

OptimizerFactory factory(const Setup& setup);

}  // namespace mlo::testing
