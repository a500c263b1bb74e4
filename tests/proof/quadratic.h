// Random multilevel problems whose hypergradients are known: quadratic levels on any graph of
// reads, by request bent with softplus and quartic terms. One description serves the engine
// (QuadraticProblem), the closed forms (reference.h) and the replay on graph tensors (curved.h).
#pragma once

#include "mlo/engine.h"
#include "mlo/problem.h"

#include <Eigen/Dense>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace mlo::testing {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;
using Indices = std::vector<std::size_t>;

struct LevelShape {
  /// A parameter that enters the level's own loss linearly: its gradient depends on what the level
  /// reads, or on nothing.
  enum class Linear { none, coupled, constant };

  std::string name;
  Indices reads = {};
  Indices constant = {};  ///< levels whose values it uses as declared constants
  bool direct = true;     ///< its loss depends on its own parameters directly
  Linear linear = Linear::none;
  bool unused = false;  ///< trains a parameter that no loss uses
  bool frozen = false;  ///< registers a parameter without requires_grad, which its loss uses
  bool top = false;
};

/// A graph of reads, levels in the order of registration, and the levels whose total derivative is
/// asked for.
struct Shape {
  std::string name;
  std::vector<LevelShape> levels;
  Indices uppers;
};
/// Chains, diamonds, two below, two on top, and all the rest of the graphs that a sweep must get
/// right.
std::vector<Shape> shapes();
const Shape& shape(const std::string& name);

struct GameOptions {
  bool curved = false;
  double condition =
      4.0;  ///< of each level's own Hessian (of the quadratic part); its largest eigenvalue is 1
  double coupling = 0.35;  ///< size of the other second derivatives
  uint64_t seed = 1;
};

/// The numbers of one problem and its live parameters. With x all levels' used parameters, one
/// after the other,
///     L_k = ½ xᵀQ_k x + b_kᵀx   (curved: + Σ softplus(C_k x + r) + ¼ Σ (D_k x)⁴ + …, mean over the
///     batch's rows r).
class Game {
 public:
  explicit Game(Shape shape, GameOptions options = {});

  const Shape shape;
  const GameOptions options;
  /// By level: two tensors that its own loss is curved in, then the linear and the unused one.
  std::vector<Tensors> parameters;

  std::size_t levels() const { return shape.levels.size(); }
  Eigen::Index size(std::size_t k) const { return offsets_[k + 1] - offsets_[k]; }
  Eigen::Index offset(std::size_t k) const { return offsets_[k]; }
  /// ∂²L_k/∂θ_i∂θ_j of the quadratic part.
  Matrix block(std::size_t k, std::size_t i, std::size_t j) const;
  /// ∂L_k/∂θ_j of the quadratic part at x.
  Vector gradient(std::size_t k, std::size_t j, const Vector& x) const;
  /// Part of x.
  Vector part(const Vector& x, std::size_t k) const { return x.segment(offset(k), size(k)); }

  /// All levels' parameters as they are.
  Vector stacked() const;
  /// One tensor a parameter, to one vector. Throws unless the unused parameter's is zero or
  /// undefined.
  Vector flat(std::size_t k, const Tensors& list) const;
  /// Writes the live parameters of a level.
  void set(std::size_t k, const Vector& values);
  /// L_k as a function of any tensors in the parameters' places.
  at::Tensor loss(std::size_t k, const std::vector<Tensors>& theta, const Batch& batch = {}) const;

  /// What the levels did: each own step with the values before it and the gradient that the
  /// optimizer was given.
  struct Step {
    std::size_t level;
    Vector theta, gradient;
    Tensors given;  // the gradient as tensors
    Vector x;       // all levels' values
  };
  std::vector<Step> log;

 private:
  struct Pieces {
    Indices others;            // read levels, in order
    at::Tensor q, b, c, d;     // over own (if direct) and the others' parameters
    at::Tensor slope, offset;  // linear: ℓ·(slope y + offset), y the others' parameters
    at::Tensor pull, frozen;   // frozen·(pull x)
  };
  void make_level(std::size_t k, std::mt19937_64& random);

  std::vector<Eigen::Index> offsets_;
  std::vector<Matrix> q_;
  std::vector<Vector> b_;
  std::vector<Pieces> pieces_;
  friend class QuadraticProblem;
};

class QuadraticProblem : public Problem {
 public:
  QuadraticProblem(std::shared_ptr<Game> game, std::size_t level);
  Evaluation loss(const Batch& batch) override {
    return game_->loss(level_, game_->parameters, batch);
  }
  void on_gradient(Tensors& gradient) override;

 protected:
  std::shared_ptr<Game> game_;
  const std::size_t level_;
};

/// The same with its derivatives in closed form (not for curved games).
class AnalyticQuadraticProblem final : public QuadraticProblem, public AnalyticDerivatives {
 public:
  using QuadraticProblem::QuadraticProblem;
  Tensors product(const Batch& batch, const Tensors& v, const Tensors& wrt) override;
  std::optional<Evaluation> gradient(const Batch& batch, const Tensors& wrt,
                                     Tensors& gradient) override;
  double factor = 1.0;  ///< on the products: 1 is right

 private:
  Tensors spread(const std::function<Vector(std::size_t)>& of_level, const Tensors& wrt) const;
};

/// Adds all levels of a game; `options` by level, to which names of constants and tops are added.
void add_levels(Engine& engine, const std::shared_ptr<Game>& game,
                const std::function<LevelOptions(std::size_t)>& options, bool analytic = false);

Vector to_vector(const at::Tensor& tensor);
at::Tensor to_tensor(const Matrix& matrix);
/// ‖a − b‖/‖b‖; ‖a‖ where b is zero.
double relative_error(const Vector& a, const Vector& b);
/// n×n, symmetric, eigenvalues evenly from 1/condition to 1.
Matrix random_definite(Eigen::Index n, double condition, std::mt19937_64& random);
Matrix random_matrix(Eigen::Index rows, Eigen::Index columns, std::mt19937_64& random);

}  // namespace mlo::testing
