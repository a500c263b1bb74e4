#include "quadratic.h"

#include <ATen/ATen.h>
#include <torch/types.h>

#include <algorithm>
#include <stdexcept>

namespace mlo::testing {
namespace {

constexpr Eigen::Index kMain = 5, kLinear = 2, kUnused = 3, kFrozen = 2, kBends = 3;

bool has_linear(const LevelShape& level) { return level.linear != LevelShape::Linear::none; }

// The entries of a vector, in this order.
std::vector<Eigen::Index> range(Eigen::Index begin, Eigen::Index count) {
  std::vector<Eigen::Index> result(static_cast<std::size_t>(count));
  for (auto& entry : result) entry = begin++;
  return result;
}

// The tensors of a level that losses use.
Tensors used(const LevelShape& level, const Tensors& theta) {
  return Tensors(theta.begin(), theta.begin() + (has_linear(level) ? 3 : 2));
}

}  // namespace

Matrix random_matrix(Eigen::Index rows, Eigen::Index columns, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  return Matrix::NullaryExpr(rows, columns, [&] { return normal(random); });
}

Matrix random_definite(Eigen::Index n, double condition, std::mt19937_64& random) {
  const Matrix basis = Eigen::HouseholderQR<Matrix>(random_matrix(n, n, random)).householderQ();
  Vector values = Vector::Ones(n);
  if (n > 1) values = Vector::LinSpaced(n, 1.0 / condition, 1.0);
  const Matrix q = basis * values.asDiagonal() * basis.transpose();
  return 0.5 * (q + q.transpose());
}

Vector to_vector(const at::Tensor& tensor) {
  const at::Tensor line = tensor.detach().to(at::kDouble).contiguous();
  return Eigen::Map<const Vector>(line.const_data_ptr<double>(), line.numel());
}

at::Tensor to_tensor(const Matrix& matrix) {
  using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  at::Tensor tensor = at::empty({matrix.rows(), matrix.cols()}, kDouble);
  Eigen::Map<RowMajor>(tensor.mutable_data_ptr<double>(), matrix.rows(), matrix.cols()) = matrix;
  return tensor;
}

double relative_error(const Vector& a, const Vector& b) {
  const double size = b.norm();
  return (a - b).norm() / (size > 0.0 ? size : 1.0);
}

Game::Game(Shape the_shape, GameOptions the_options)
    : shape(std::move(the_shape)), options(the_options) {
  std::mt19937_64 random(options.seed);
  offsets_.push_back(0);
  for (const LevelShape& level : shape.levels)
    offsets_.push_back(offsets_.back() + kMain + (has_linear(level) ? kLinear : 0));
  for (const LevelShape& level : shape.levels) {
    Tensors& theta = parameters.emplace_back();
    const auto leaf = [&](Eigen::Index rows, at::IntArrayRef sizes) {
      theta.push_back(
          to_tensor(0.7 * random_matrix(rows, 1, random)).view(sizes).clone().requires_grad_());
    };
    leaf(2, {2});
    leaf(kMain - 2, {kMain - 2, 1});
    if (has_linear(level)) leaf(kLinear, {1, kLinear});
    if (level.unused) leaf(kUnused, {kUnused});
  }
  for (std::size_t k = 0; k < levels(); ++k) make_level(k, random);
}

void Game::make_level(std::size_t k, std::mt19937_64& random) {
  const LevelShape& level = shape.levels[k];
  Pieces& pieces = pieces_.emplace_back();
  pieces.others = level.reads;
  pieces.others.insert(pieces.others.end(), level.constant.begin(), level.constant.end());

  std::vector<Eigen::Index> own, others;
  if (level.direct) own = range(offset(k), kMain);
  for (const std::size_t j : pieces.others)
    for (const Eigen::Index entry : range(offset(j), size(j))) others.push_back(entry);
  std::vector<Eigen::Index> all = own;
  all.insert(all.end(), others.begin(), others.end());
  const auto n = static_cast<Eigen::Index>(all.size()), m = static_cast<Eigen::Index>(own.size());

  Matrix q = random_matrix(n, n, random);
  q = (0.5 * options.coupling * (q + q.transpose())).eval();
  if (level.direct) q.topLeftCorner(m, m) = random_definite(m, options.condition, random);
  const Vector b = random_matrix(n, 1, random);
  pieces.q = to_tensor(q);
  pieces.b = to_tensor(b).view({-1});
  if (options.curved) {
    pieces.c = to_tensor(1.5 * random_matrix(kBends, n, random).rowwise().normalized());
    pieces.d = to_tensor(0.8 * random_matrix(kBends, n, random).rowwise().normalized());
  }

  Matrix& stacked_q = q_.emplace_back(Matrix::Zero(offsets_.back(), offsets_.back()));
  Vector& stacked_b = b_.emplace_back(Vector::Zero(offsets_.back()));
  stacked_q(all, all) = q;
  stacked_b(all) = b;
  if (level.frozen) {
    const Matrix pull = random_matrix(kFrozen, n, random);
    const Vector frozen = random_matrix(kFrozen, 1, random);
    pieces.pull = to_tensor(pull);
    pieces.frozen = to_tensor(frozen).view({-1});
    stacked_b(all) += pull.transpose() * frozen;
  }
  if (has_linear(level)) {
    const auto linear = range(offset(k) + kMain, kLinear);
    const Vector constant = random_matrix(kLinear, 1, random);
    pieces.offset = to_tensor(constant).view({-1});
    stacked_b(linear) += constant;
    if (level.linear == LevelShape::Linear::coupled) {
      const Matrix slope = options.coupling * random_matrix(kLinear, n - m, random);
      pieces.slope = to_tensor(slope);
      stacked_q(linear, others) += slope;
      stacked_q(others, linear) += slope.transpose();
    }
  }
}

Matrix Game::block(std::size_t k, std::size_t i, std::size_t j) const {
  return q_[k].block(offset(i), offset(j), size(i), size(j));
}

Vector Game::gradient(std::size_t k, std::size_t j, const Vector& x) const {
  return part(q_[k] * x + b_[k], j);
}

Vector Game::flat(std::size_t k, const Tensors& list) const {
  const LevelShape& level = shape.levels[k];
  if (list.size() != parameters[k].size()) throw std::logic_error("one tensor a parameter, please");
  if (level.unused && list.back().defined() && list.back().abs().max().item<double>() != 0.0)
    throw std::logic_error("an unused parameter has a gradient");
  Vector result(size(k));
  Eigen::Index at = 0;
  const std::size_t count = used(level, parameters[k]).size();
  for (std::size_t i = 0; i < count; ++i) {
    const Eigen::Index n = parameters[k][i].numel();
    result.segment(at, n) = list[i].defined() ? to_vector(list[i]) : Vector::Zero(n);
    at += n;
  }
  return result;
}

Vector Game::stacked() const {
  Vector x(offsets_.back());
  for (std::size_t k = 0; k < levels(); ++k) {
    Tensors values = parameters[k];
    if (shape.levels[k].unused) values.back() = at::Tensor();
    x.segment(offset(k), size(k)) = flat(k, values);
  }
  return x;
}

void Game::set(std::size_t k, const Vector& values) {
  const at::NoGradGuard no_grad;
  Eigen::Index at = 0;
  for (const auto& tensor : used(shape.levels[k], parameters[k])) {
    tensor.copy_(to_tensor(values.segment(at, tensor.numel())).view(tensor.sizes()));
    at += tensor.numel();
  }
}

at::Tensor Game::loss(std::size_t k, const std::vector<Tensors>& theta, const Batch& batch) const {
  const LevelShape& level = shape.levels[k];
  const Pieces& pieces = pieces_[k];
  Tensors lines;
  for (const std::size_t j : pieces.others)
    for (const auto& tensor : used(shape.levels[j], theta[j]))
      lines.push_back(tensor.reshape({-1}));
  const at::Tensor y = lines.empty() ? at::Tensor() : at::cat(lines);
  at::Tensor x = y;
  if (level.direct) {
    Tensors own = {theta[k][0].reshape({-1}), theta[k][1].reshape({-1})};
    if (y.defined()) own.push_back(y);
    x = at::cat(own);
  }
  at::Tensor value = x.dot(0.5 * pieces.q.mv(x) + pieces.b);
  if (pieces.frozen.defined()) value = value + pieces.frozen.dot(pieces.pull.mv(x));
  if (has_linear(level)) {
    const at::Tensor line = theta[k][2].reshape({-1});
    value = value + line.dot(pieces.offset);
    if (pieces.slope.defined()) value = value + line.dot(pieces.slope.mv(y));
  }
  if (options.curved) {
    const at::Tensor bend = pieces.c.mv(x);
    value = value + (batch.size() == 0 ? at::softplus(bend).sum()
                                       : at::softplus(bend + batch[0]).sum(1).mean());
    value = value + 0.25 * pieces.d.mv(x).pow(4).sum();
    // Terms for which autograd saves the parameters themselves, so that what a kept graph needs of
    // them is proven, too.
    for (const std::size_t j : pieces.others) {
      value = value + 0.02 * theta[j][0].pow(4).sum();
      if (level.direct) value = value + 0.1 * (theta[k][1] * theta[j][1]).square().sum();
    }
    if (level.direct) value = value + 0.02 * theta[k][0].pow(4).sum();
  }
  return value;
}

QuadraticProblem::QuadraticProblem(std::shared_ptr<Game> game, std::size_t level)
    : Problem([&] {
        Trains trained;
        std::size_t i = 0;
        for (const auto& tensor : game->parameters[level])
          trained.add("theta" + std::to_string(i++), tensor);
        if (const auto& frozen = game->pieces_[level].frozen; frozen.defined())
          trained.add("frozen", frozen);
        return trained;
      }()),
      game_(std::move(game)),
      level_(level) {}

void QuadraticProblem::on_gradient(Tensors& gradient) {
  Tensors given = gradient;
  for (auto& tensor : given)
    if (tensor.defined()) tensor = tensor.clone();
  const Vector x = game_->stacked();
  game_->log.push_back({level_, game_->part(x, level_), game_->flat(level_, given), given, x});
}

// A vector for each level, cut to the tensors of `wrt`.
Tensors AnalyticQuadraticProblem::spread(const std::function<Vector(std::size_t)>& of_level,
                                         const Tensors& wrt) const {
  Tensors result(wrt.size());
  for (std::size_t t = 0; t < wrt.size(); ++t)
    for (std::size_t j = 0; j < game_->levels(); ++j) {
      int64_t at = 0;
      const Tensors live = used(game_->shape.levels[j], game_->parameters[j]);
      for (const auto& tensor : live) {
        if (tensor.is_same(wrt[t]))
          result[t] = to_tensor(of_level(j).segment(at, tensor.numel())).view(tensor.sizes());
        at += tensor.numel();
      }
    }
  return result;
}

Tensors AnalyticQuadraticProblem::product(const Batch& /*batch*/, const Tensors& v,
                                          const Tensors& wrt) {
  Tensors direction = v;
  if (game_->shape.levels[level_].unused) direction.back() = at::Tensor();
  const Vector line = game_->flat(level_, direction);
  return spread(
      [&](std::size_t j) -> Vector { return factor * (game_->block(level_, j, level_) * line); },
      wrt);
}

std::optional<Evaluation> AnalyticQuadraticProblem::gradient(const Batch& batch, const Tensors& wrt,
                                                             Tensors& gradient) {
  const at::NoGradGuard no_grad;
  const Vector x = game_->stacked();
  gradient = spread([&](std::size_t j) { return game_->gradient(level_, j, x); }, wrt);
  return loss(batch);
}

void add_levels(Engine& engine, const std::shared_ptr<Game>& game,
                const std::function<LevelOptions(std::size_t)>& options, bool analytic) {
  for (std::size_t k = 0; k < game->levels(); ++k) {
    const LevelShape& level = game->shape.levels[k];
    LevelOptions chosen = options(k);
    chosen.top = level.top;
    for (const std::size_t j : level.constant)
      chosen.constant.push_back(game->shape.levels[j].name);
    if (analytic) {
      engine.add(level.name, std::make_shared<AnalyticQuadraticProblem>(game, k),
                 std::move(chosen));
    } else {
      engine.add(level.name, std::make_shared<QuadraticProblem>(game, k), std::move(chosen));
    }
  }
}

}  // namespace mlo::testing
