#include "reference.h"

#include <algorithm>

namespace mlo::testing {
namespace {

bool contains(const Indices& list, std::size_t item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

bool is_below(const Shape& shape, std::size_t k, std::size_t u) {
  return k < u && !shape.levels[k].top;
}

// Warshall's closure of reads among the levels below u and u itself.
std::vector<std::vector<char>> closure(const Shape& shape, std::size_t u) {
  const std::size_t n = shape.levels.size();
  std::vector<std::vector<char>> reaches(n, std::vector<char>(n, 0));
  const auto takes_part = [&](std::size_t k) { return k == u || is_below(shape, k, u); };
  for (std::size_t k = 0; k < n; ++k)
    for (const std::size_t j : shape.levels[k].reads)
      reaches[k][j] = takes_part(k) && takes_part(j);
  for (std::size_t via = 0; via < n; ++via)
    for (std::size_t from = 0; from < n; ++from)
      for (std::size_t to = 0; to < n; ++to)
        if (reaches[from][via] && reaches[via][to]) reaches[from][to] = 1;
  return reaches;
}

}  // namespace

std::vector<char> responds(const Shape& shape, std::size_t u) {
  const auto reaches = closure(shape, u);
  std::vector<char> result(shape.levels.size(), 0);
  for (std::size_t k = 0; k < result.size(); ++k)
    result[k] = k != u && reaches[u][k] && reaches[k][u];
  return result;
}

bool is_nested(const Shape& shape, std::size_t u) {
  const auto responding = responds(shape, u);
  Shape without = shape;  // reads among the responding levels only
  for (std::size_t k = 0; k < without.levels.size(); ++k) {
    auto& reads = without.levels[k].reads;
    std::erase_if(reads, [&](std::size_t j) { return !responding[k] || !responding[j]; });
  }
  const auto reaches = closure(without, u);
  for (std::size_t k = 0; k < reaches.size(); ++k)
    if (reaches[k][k]) return true;
  return false;
}

Vector total_derivative(const Game& game, std::size_t u, const Vector& x) {
  Indices below;
  for (std::size_t k = 0; k < u; ++k)
    if (is_below(game.shape, k, u)) below.push_back(k);
  std::vector<Eigen::Index> at = {0};
  for (const std::size_t k : below) at.push_back(at.back() + game.size(k));

  // J dθ = −C dθ_u, rows: ∂_k L_k = 0. What a level takes as a constant has no column.
  Matrix j = Matrix::Zero(at.back(), at.back()), c = Matrix::Zero(at.back(), game.size(u));
  Vector a = Vector::Zero(at.back());
  const auto depends = [&](std::size_t k, std::size_t on) {
    return k == on || contains(game.shape.levels[k].reads, on);
  };
  for (std::size_t row = 0; row < below.size(); ++row) {
    const std::size_t k = below[row];
    for (std::size_t column = 0; column < below.size(); ++column)
      if (depends(k, below[column]))
        j.block(at[row], at[column], game.size(k), game.size(below[column])) =
            game.block(k, k, below[column]);
    if (depends(k, u)) c.middleRows(at[row], game.size(k)) = game.block(k, k, u);
    if (depends(u, k)) a.segment(at[row], game.size(k)) = game.gradient(u, k, x);
  }
  Vector g = game.gradient(u, u, x);
  if (!below.empty()) g -= j.fullPivLu().solve(c).transpose() * a;
  return g;
}

Vector path_sum(const Game& game, std::size_t u, const Vector& x, const std::vector<Matrix>& s,
                Fault fault) {
  return path_sum(game.shape, u,
                  {[&](std::size_t j) { return game.gradient(u, j, x); },
                   [&](std::size_t k, std::size_t j) { return game.block(k, j, k); }},
                  s, fault);
}

Vector path_sum(const Shape& shape, std::size_t u, const Derivatives& derivatives,
                const std::vector<Matrix>& s, Fault fault) {
  const auto responding = responds(shape, u);
  Vector g = derivatives.slope(u);
  bool lost = fault != Fault::lost_path;
  const std::function<void(std::size_t, const Vector&)> walk = [&](std::size_t k,
                                                                   const Vector& adjoint) {
    const Vector z = s[k].transpose() * adjoint;
    for (const std::size_t j : shape.levels[k].reads) {
      if (j != u && !responding[j]) continue;
      const Vector next =
          derivatives.mixed(k, j) * z * (j == u && fault == Fault::sign ? 1.0 : -1.0);
      if (j == u && !lost) {
        lost = true;
      } else if (j == u) {
        g += next;
      } else {
        walk(j, next);
      }
    }
  };
  for (const std::size_t k : shape.levels[u].reads)
    if (responding[k]) walk(k, derivatives.slope(k));
  return g;
}

Vector dense_sweep(const Game& game, std::size_t u, const Vector& x, const std::vector<Matrix>& s,
                   const Indices& order) {
  std::vector<Vector> adjoints(game.levels());
  for (std::size_t k = 0; k < game.levels(); ++k)
    adjoints[k] = k == u || contains(game.shape.levels[u].reads, k) ? game.gradient(u, k, x)
                                                                    : Vector::Zero(game.size(k));
  for (const std::size_t k : order) {
    const Vector z = s[k].transpose() * adjoints[k];
    for (const std::size_t j : game.shape.levels[k].reads) adjoints[j] -= game.block(k, j, k) * z;
  }
  return adjoints[u];
}

Matrix neumann_matrix(const Matrix& h, double alpha, int64_t iterations) {
  Matrix power = Matrix::Identity(h.rows(), h.cols()), sum = power;
  for (int64_t i = 0; i < iterations; ++i) {
    power = power * (Matrix::Identity(h.rows(), h.cols()) - alpha * h);
    sum += power;
  }
  return alpha * sum;
}

Matrix step_response(const Setup& setup, const Matrix& h, const std::vector<Game::Step>& steps,
                     std::size_t last) {
  const Group& o = setup.groups.at(0);
  const Eigen::Index n = h.rows();
  const Matrix one = Matrix::Identity(n, n);
  const bool decoupled = setup.kind == Kind::adamw;
  Matrix x = Matrix::Zero(n, n), m_x = x, v_x = x;  // derivatives of θ and of the moments by p
  Vector m = Vector::Zero(n), v = m;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const bool counts = i + last >= steps.size();
    Matrix d_x = counts ? Matrix(one + h * x) : Matrix::Zero(n, n);
    Vector d = steps[i].gradient;
    if (!decoupled && o.weight_decay != 0.0) {
      d += o.weight_decay * steps[i].theta;
      d_x += o.weight_decay * x;
    }
    const auto t = static_cast<double>(i + 1);
    if (setup.kind == Kind::sgd) {
      const double keep = i == 0 ? 0.0 : o.momentum, take = i == 0 ? 1.0 : 1.0 - o.dampening;
      m_x = o.momentum == 0.0 ? d_x : Matrix(keep * m_x + take * d_x);
      x -= o.lr * (o.nesterov ? Matrix(d_x + o.momentum * m_x) : m_x);
      continue;
    }
    m = o.beta1 * m + (1.0 - o.beta1) * d;
    v = o.beta2 * v + (1.0 - o.beta2) * d.cwiseAbs2();
    m_x = o.beta1 * m_x + (1.0 - o.beta1) * d_x;
    v_x = o.beta2 * v_x + (1.0 - o.beta2) * 2.0 * d.asDiagonal() * d_x;
    const double c1 = 1.0 - std::pow(o.beta1, t), c2 = 1.0 - std::pow(o.beta2, t);
    const Vector s = (v / c2).cwiseSqrt();
    const Matrix s_x = (2.0 * c2 * s).cwiseInverse().asDiagonal() * v_x;
    const Vector root = (s.array() + o.eps).inverse();
    const Matrix update_x = root.asDiagonal() * m_x / c1 -
                            Matrix((m / c1).cwiseProduct(root.cwiseAbs2()).asDiagonal() * s_x);
    x = (decoupled ? 1.0 - o.lr * o.weight_decay : 1.0) * x - o.lr * update_x;
  }
  return -x;
}

std::vector<Game::Step> steps_of(const Game& game, std::size_t level) {
  std::vector<Game::Step> steps;
  for (const auto& step : game.log)
    if (step.level == level) steps.push_back(step);
  return steps;
}

OptimizerFactory factory(const Setup& setup) {
  return [setup](const Tensors& parameters) { return make_optimizer(setup, parameters); };
}

}  // namespace mlo::testing
