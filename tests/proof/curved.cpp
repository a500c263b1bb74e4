#include "curved.h"

#include <ATen/ATen.h>
#include <torch/autograd.h>

#include <stdexcept>

namespace mlo::testing {
namespace {

Tensors gradient(const at::Tensor& loss, const Tensors& wrt, bool create_graph) {
  return torch::autograd::grad({loss}, wrt, {}, /*retain_graph=*/true, create_graph,
                               /*allow_unused=*/true);
}

// Graph tensors with the values of x; unused parameters are zero.
std::vector<Tensors> leaves(const Game& game, const Vector& x) {
  std::vector<Tensors> result(game.levels());
  for (std::size_t k = 0; k < game.levels(); ++k) {
    Eigen::Index at = 0;
    const Vector part = game.part(x, k);
    for (const auto& like : game.parameters[k]) {
      at::Tensor values = at::zeros_like(like.detach());
      if (at + like.numel() <= part.size())
        values = to_tensor(part.segment(at, like.numel())).view(like.sizes());
      at += like.numel();
      result[k].push_back(values.clone().requires_grad_());
    }
  }
  return result;
}

Indices responding_levels(const Game& game, std::size_t u) {
  const auto marks = responds(game.shape, u);
  Indices result;
  for (std::size_t k = 0; k < marks.size(); ++k)
    if (marks[k]) result.push_back(k);
  return result;
}

struct Joint {
  Indices levels;
  std::vector<Eigen::Index> at = {0};

  Joint(const Game& game, std::size_t u) : levels(responding_levels(game, u)) {
    for (const std::size_t k : levels) at.push_back(at.back() + game.size(k));
  }
  Matrix jacobian(const Game& game, const Vector& x) const {
    Matrix j(at.back(), at.back());
    for (std::size_t row = 0; row < levels.size(); ++row)
      for (std::size_t column = 0; column < levels.size(); ++column)
        j.block(at[row], at[column], game.size(levels[row]), game.size(levels[column])) =
            bend(game, levels[row], levels[row], levels[column], x);
    return j;
  }
};

class Scaled final : public Visit {
 public:
  Scaled(Visit& visit, double factor) : visit_(visit), factor_(factor) {}
  const std::string& level() const override { return visit_.level(); }
  const std::string& upper() const override { return visit_.upper(); }
  const Tensors& adjoint() const override { return visit_.adjoint(); }
  const Tensors& targets() const override { return visit_.targets(); }
  void subtract(const Tensors& products) override { visit_.subtract(scaled(products, factor_)); }
  std::size_t steps() const override { return visit_.steps(); }
  const StepRecord& step(std::size_t i) const override { return visit_.step(i); }
  std::unique_ptr<Probe> probe(std::size_t i, EvaluationPoint point) override {
    return visit_.probe(i, point);
  }

 private:
  Visit& visit_;
  const double factor_;
};

class Faulty final : public Method {
 public:
  Faulty(std::unique_ptr<Method> method, double factor)
      : method_(std::move(method)), factor_(factor) {}
  std::string name() const override { return "faulty " + method_->name(); }
  Needs needs() const override { return method_->needs(); }
  void visit(Visit& visit) override {
    Scaled scaled(visit, factor_);
    method_->visit(scaled);
  }

 private:
  std::unique_ptr<Method> method_;
  const double factor_;
};

}  // namespace

std::vector<Tensors> copied(const std::vector<Tensors>& parameters) {
  std::vector<Tensors> result;
  for (const auto& list : parameters) {
    Tensors& copies = result.emplace_back();
    for (const auto& tensor : list) copies.push_back(tensor.detach().clone());
  }
  return result;
}

Replayed replay(const Game& game, std::size_t u, const std::vector<Tensors>& start,
                std::size_t mark, const ReplayOptions& options) {
  std::vector<Tensors> values = copied(start);
  std::vector<FunctionalUpdate> updates;
  std::vector<std::size_t> taken(game.levels(), 0);
  for (std::size_t k = 0; k < game.levels(); ++k)
    updates.emplace_back(options.optimizers[k], start[k].size());
  const auto step = [&](std::size_t k, const Tensors& g) {
    if (options.schedule) updates[k].rate = options.schedule(taken[k]);
    values[k] = updates[k](values[k], g);
    ++taken[k];
  };

  for (std::size_t i = 0; i < mark; ++i) step(game.log[i].level, game.log[i].given);
  for (auto& list : values)
    for (auto& tensor : list) tensor = tensor.detach().requires_grad_();
  const Tensors upper = values[u];
  const auto responding = responds(game.shape, u);
  std::size_t end = mark;
  for (; end < game.log.size() && game.log[end].level != u; ++end) {
    const std::size_t k = game.log[end].level;
    if (!responding[k]) {
      step(k, game.log[end].given);
      continue;
    }
    const Tensors g = gradient(game.loss(k, values), values[k], /*create_graph=*/true);
    step(k, clipped(g, options.clip_norms.empty() ? 0.0 : options.clip_norms[k]));
  }
  Replayed result;
  result.derivative = game.flat(u, gradient(game.loss(u, values), upper, false));
  const Vector there = end < game.log.size() ? game.log[end].x : game.stacked();
  for (std::size_t k = 0; k < game.levels(); ++k) {
    Tensors here = values[k];
    if (game.shape.levels[k].unused) here.back() = at::Tensor();
    result.drift = std::max(result.drift, relative_error(game.flat(k, here), game.part(there, k)));
  }
  return result;
}

Vector slope(const Game& game, std::size_t k, std::size_t j, const Vector& x) {
  const auto theta = leaves(game, x);
  return game.flat(j, gradient(game.loss(k, theta), theta[j], false));
}

Matrix bend(const Game& game, std::size_t k, std::size_t i, std::size_t j, const Vector& x) {
  const auto theta = leaves(game, x);
  const Tensors first = gradient(game.loss(k, theta), theta[i], true);
  Matrix result = Matrix::Zero(game.size(i), game.size(j));
  Eigen::Index row = 0;
  for (std::size_t t = 0; t < first.size() && row < game.size(i); ++t)
    for (int64_t entry = 0; entry < theta[i][t].numel(); ++entry, ++row)
      if (first[t].defined() && first[t].requires_grad())
        result.row(row) =
            game.flat(j, gradient(first[t].reshape({-1})[entry], theta[j], false)).transpose();
  return result;
}

Vector settled(const Game& game, std::size_t u, Vector x) {
  const Joint joint(game, u);
  double last = 1e300;
  for (int iteration = 0; iteration < 100; ++iteration) {
    Vector f(joint.at.back());
    for (std::size_t row = 0; row < joint.levels.size(); ++row)
      f.segment(joint.at[row], game.size(joint.levels[row])) =
          slope(game, joint.levels[row], joint.levels[row], x);
    if (f.norm() < 1e-12 && f.norm() >= 0.5 * last) return x;
    last = f.norm();
    Vector step = joint.jacobian(game, x).fullPivLu().solve(f);
    if (step.norm() > 1.0) step /= step.norm();  // far away
    for (std::size_t row = 0; row < joint.levels.size(); ++row)
      x.segment(game.offset(joint.levels[row]), game.size(joint.levels[row])) -=
          step.segment(joint.at[row], game.size(joint.levels[row]));
  }
  throw std::runtime_error("Newton's method did not settle: " + std::to_string(last));
}

Vector implicit_derivative(const Game& game, std::size_t u, const Vector& x) {
  const Joint joint(game, u);
  Matrix c(joint.at.back(), game.size(u));
  Vector a(joint.at.back());
  for (std::size_t row = 0; row < joint.levels.size(); ++row) {
    const std::size_t k = joint.levels[row];
    c.middleRows(joint.at[row], game.size(k)) = bend(game, k, k, u, x);
    a.segment(joint.at[row], game.size(k)) = slope(game, u, k, x);
  }
  return slope(game, u, u, x) - joint.jacobian(game, x).fullPivLu().solve(c).transpose() * a;
}

double loss_at(const Game& game, std::size_t k, const Vector& x) {
  return game.loss(k, leaves(game, x)).item<double>();
}

std::unique_ptr<Method> faulty(std::unique_ptr<Method> method, double factor) {
  return std::make_unique<Faulty>(std::move(method), factor);
}

}  // namespace mlo::testing
