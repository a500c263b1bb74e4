#include "precompiled.h"

#include "mlo/check.h"

#include "engine/body.h"
#include "engine/differences.h"
#include "level/evaluate.h"
#include "level/second_order.h"
#include "mlo/error.h"
#include "tensors/gradients.h"
#include "text.h"

#include <algorithm>
#include <cmath>

namespace mlo {
namespace {

Comparison compare(const std::vector<double>& g, const std::vector<double>& r) {
  double difference = 0.0, gg = 0.0, rr = 0.0, gr = 0.0;
  for (std::size_t i = 0; i < g.size(); ++i) {
    difference += (g[i] - r[i]) * (g[i] - r[i]);
    gg += g[i] * g[i];
    rr += r[i] * r[i];
    gr += g[i] * r[i];
  }
  Comparison result{
      .cosine = 1.0, .norm = std::sqrt(gg), .reference_norm = std::sqrt(rr), .worst = {}};
  if (gg == 0.0 && rr == 0.0) return result;
  result.relative_error = std::sqrt(difference / (rr > 0.0 ? rr : gg));
  result.cosine = gg > 0.0 && rr > 0.0 ? gr / std::sqrt(gg * rr) : 0.0;
  return result;
}

std::vector<int64_t> unraveled(int64_t element, at::IntArrayRef sizes) {
  std::vector<int64_t> index(sizes.size());
  for (std::size_t d = sizes.size(); d-- > 0; element /= sizes[d]) index[d] = element % sizes[d];
  return index;
}

// Of tensors that automatic differentiation gives, element by element.
Comparison compare(const Tensors& g, const Tensors& r, const std::vector<std::string>& names) {
  std::vector<double> flat[2];
  for (int side = 0; side < 2; ++side)
    for (const auto& tensor : side == 0 ? g : r) {
      const at::Tensor line = tensor.detach().to(at::kDouble).cpu().contiguous().view({-1});
      flat[side].insert(flat[side].end(), line.const_data_ptr<double>(),
                        line.const_data_ptr<double>() + line.numel());
    }
  Comparison result = compare(flat[0], flat[1]);
  double largest = 0.0;
  std::size_t at = 0;
  for (std::size_t t = 0; t < g.size(); ++t)
    for (int64_t i = 0; i < g[t].numel(); ++i, ++at) {
      const double apart = std::abs(flat[0][at] - flat[1][at]);
      if (apart <= largest) continue;
      largest = apart;
      result.worst = {names[t], unraveled(i, g[t].sizes()), flat[0][at], flat[1][at]};
    }
  return result;
}

double root_mean_square(const at::Tensor& tensor) {
  return norm({tensor.detach()}) /
         std::sqrt(static_cast<double>(std::max<int64_t>(tensor.numel(), 1)));
}

Direction random_direction(const Level& level, const std::vector<double>& sizes,
                           std::vector<std::size_t> parameters, uint64_t key) {
  Direction direction;
  direction.shift.resize(level.parameters.size());
  seed_generators(key);
  double squares = 0.0, count = 0.0;
  for (const std::size_t t : parameters) {
    direction.shift[t] = zeros_like({level.parameters[t]}).front().normal_().mul_(sizes[t]);
    squares += sizes[t] * sizes[t] * static_cast<double>(level.parameters[t].numel());
    count += static_cast<double>(level.parameters[t].numel());
  }
  direction.unit = count > 0.0 ? std::sqrt(squares / count) : 1.0;
  direction.parameters = std::move(parameters);
  return direction;
}

Direction coordinate(const Level& level, const std::vector<double>& sizes, std::size_t parameter,
                     int64_t element) {
  Direction direction;
  direction.shift.resize(level.parameters.size());
  direction.shift[parameter] = zeros_like({level.parameters[parameter]}).front();
  const double value = level.parameters[parameter].detach().reshape({-1})[element].item<double>();
  direction.unit = std::max(std::abs(value), std::min(sizes[parameter], 1.0));
  direction.shift[parameter].view({-1})[element].fill_(direction.unit);
  direction.parameters = {parameter};
  direction.coordinate = element;
  return direction;
}

// What a step is relative to: a tensor near zero says nothing about how far the loss is smooth, so
// no size is below 1.
std::vector<double> sizes_of(const Level& level) {
  std::vector<double> sizes;
  for (const auto& parameter : level.parameters)
    sizes.push_back(std::max(root_mean_square(parameter), 1.0));
  return sizes;
}

// But small numbers may be small because they mean something (a learning rate): a tensor's own size
// it is, where steps of that size give better differences, or others.
void look_at_small_tensors(const Level& level, std::vector<double>& sizes, Differences& differences,
                           const CheckOptions& options) {
  std::vector<double> own = sizes;
  std::vector<std::vector<std::size_t>>
      small;  // one by one, or all at once where there are more than directions
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    const double size = root_mean_square(level.parameters[t]);
    if (size == 0.0 || size > 0.1) continue;
    own[t] = size;
    if (small.empty() || static_cast<int64_t>(sizes.size()) <= options.directions)
      small.emplace_back();
    small.back().push_back(t);
  }
  for (const auto& tensors : small) {
    const auto along = [&](const std::vector<double>& relative_to) {
      const auto number = static_cast<int64_t>(tensors.front());
      return differences.attempt(random_direction(
          level, relative_to, tensors, stream_key(options.seed, level.stream, -7, number)));
    };
    const Differences::Derivative far = along(sizes), near = along(own);
    // Of several the two directions are not the same, and only the errors compare.
    const bool are_alike =
        tensors.size() > 1 || std::abs(far.value - near.value) <= 2.0 * (far.error + near.error);
    if (near.error < far.error || !are_alike)
      for (const std::size_t t : tensors) sizes[t] = own[t];
  }
}

// `budget` directions, shared out evenly among the tensors, or among groups of them where there are
// more tensors.
std::vector<Direction> directions_of(const Level& level, const std::vector<double>& sizes,
                                     int64_t budget, uint64_t seed) {
  struct Block {
    std::vector<std::size_t> parameters;
    int64_t elements = 0, share = 0;
  };
  std::vector<Block> blocks(std::min(level.parameters.size(), static_cast<std::size_t>(budget)));
  for (std::size_t t = 0; t < level.parameters.size(); ++t) {
    Block& block = blocks[t % blocks.size()];
    block.parameters.push_back(t);
    block.elements += level.parameters[t].numel();
  }
  for (bool shared = true; shared && budget > 0;) {
    shared = false;
    for (Block& block : blocks)
      if (budget > 0 && block.share < block.elements) {
        ++block.share;
        --budget;
        shared = true;
      }
  }
  std::vector<Direction> result;
  for (const Block& block : blocks)
    for (int64_t i = 0; i < block.share; ++i) {
      if (block.parameters.size() == 1 && block.share == block.elements) {
        result.push_back(coordinate(level, sizes, block.parameters[0], i));
        continue;
      }
      const auto number = static_cast<int64_t>(result.size());
      result.push_back(random_direction(level, sizes, block.parameters,
                                        stream_key(seed, level.stream, -5, number)));
      result.back().weight = 1.0 / std::sqrt(static_cast<double>(block.share));
    }
  return result;
}

Comparison compare(const Level& level, const Tensors& g, const std::vector<Direction>& directions,
                   Differences& differences) {
  std::vector<double> ours, theirs;
  double error = 0.0, largest = 0.0;
  std::optional<Comparison::Coordinate> worst;
  for (const Direction& direction : directions) {
    const double value = dot(g, direction.shift) / direction.unit;
    const Differences::Derivative derivative = differences.along(direction);
    ours.push_back(direction.weight * value);
    theirs.push_back(direction.weight * derivative.value);
    error += direction.weight * direction.weight * derivative.error * derivative.error;
    const double apart = direction.weight * std::abs(value - derivative.value);
    if (apart <= largest) continue;
    largest = apart;
    worst = {"", {}, value, derivative.value};
    for (const std::size_t t : direction.parameters)
      worst->parameter += (worst->parameter.empty() ? "" : ", ") + level.parameter_names[t];
    if (direction.coordinate >= 0)
      worst->index =
          unraveled(direction.coordinate, level.parameters[direction.parameters[0]].sizes());
  }
  Comparison result = compare(ours, theirs);
  result.worst = std::move(worst);
  const double size = result.reference_norm > 0.0 ? result.reference_norm : result.norm;
  if (size > 0.0) result.uncertainty = std::sqrt(error) / size;
  return result;
}

void compare_with_levels_solved_anew(CheckReport& report, const Tensors& g,
                                     const std::vector<Direction>& directions,
                                     Differences& differences, const Level& level) {
  report.resolved = compare(level, g, directions, differences);
  report.solved = differences.solved();
  double missing = 0.0;
  for (const auto& each : report.solved) missing = std::max(missing, each.missing);
  report.resolved->uncertainty += missing;
}

// The problem's own derivatives against automatic differentiation, on the first batch and a random
// direction.
CheckReport::Analytic check_analytic(Engine::Body& body, Level& level, uint64_t seed) {
  CheckReport::Analytic result;
  result.level = level.name;
  std::vector<char> wanted(body.levels.size(), 0);
  wanted[level.index] = 1;
  Tensors wrt = level.parameters;
  std::vector<std::string> names = level.parameter_names;
  for (const std::size_t j : body.graph.nodes[level.index].reads) {
    const Level& read = body.levels[j];
    wanted[j] = 1;
    wrt.insert(wrt.end(), read.parameters.begin(), read.parameters.end());
    for (const auto& name : read.parameter_names)
      names.push_back(message("{} of level {}", name, quoted(read.name)));
  }
  Draw draw = body.draw(level).front();
  seed_generators(stream_key(seed, level.stream, -4, 0));
  Tensors v;
  for (const auto& parameter : level.parameters) v.push_back(at::randn_like(parameter.detach()));

  body.levels.set_gradients(level, wanted);
  const SecondOrderGuard attention(true);
  Tensors gradient, product;
  {
    const at::AutoGradMode with_gradients(true);
    gradient = differentiate(level, evaluate(level, draw).loss, wrt, /*create_graph=*/true);
    at::Tensor inner;
    for (std::size_t i = 0; i < v.size(); ++i) {
      if (!gradient[i].defined() || !gradient[i].requires_grad()) continue;
      const at::Tensor term = (gradient[i] * v[i]).sum();
      inner = inner.defined() ? inner + term : term;
    }
    product.resize(wrt.size());
    if (inner.defined())
      product = gradients({inner}, wrt, {}, /*retain_graph=*/true, /*create_graph=*/false);
  }
  const at::NoGradGuard no_grad;
  result.product =
      compare(widened(analytic_product(level, draw, v, wrt), wrt), widened(product, wrt), names);
  Tensors own;
  if (replay_analytic(level, draw, wrt, own))
    result.gradient = compare(widened(own, wrt), widened(gradient, wrt), names);
  return result;
}

}  // namespace

void CheckOptions::validate() const {
  require(directions >= 1, "CheckOptions::directions = {}; it must be at least 1", directions);
  require(std::isfinite(radius) && radius >= 0.0,
          "CheckOptions::radius = {}; it must be positive and finite, or 0 for the default of the "
          "dtype",
          radius);
  require(resolve_steps >= 0,
          "CheckOptions::resolve_steps = {}; it must be at least 0 (0: not compared)",
          resolve_steps);
}

// What the configured method gives; the engine has taken a cycle then.
static Tensors method_hypergradient(Engine::Body& body, Level& level) {
  body.begin_cycle();
  body.advance_below(level);
  Tensors g = widened(body.total_gradient(level, nullptr), level.parameters);
  if (!all_finite(g))
    refuse<NonFiniteError>(
        "check_hypergradient: the hypergradient of level {} is not finite; look for a square "
        "root, logarithm or division at zero",
        quoted(level.name));
  return g;
}

static CheckReport checked(Engine& engine, const CheckOptions& options) {
  options.validate();
  engine.build();
  Engine::Body& body = EngineAccess::body(engine);
  const ExclusiveGuard exclusive(body);
  Level& level =
      options.level.empty() ? body.levels[body.tops.back()] : body.levels.find(options.level);
  StateGuard start(body);

  const Tensors g = method_hypergradient(body, level);
  start.restore();

  CheckReport report;
  report.level = level.name;
  std::vector<double> sizes = sizes_of(level);
  std::vector<std::size_t> all(level.parameters.size());
  for (std::size_t t = 0; t < all.size(); ++t) all[t] = t;
  const Direction everywhere =
      random_direction(level, sizes, all, stream_key(options.seed, level.stream, -6, 0));
  const auto add_cost = [&report](const Differences& differences) {
    report.evaluations += differences.evaluations();
    report.own_steps += differences.own_steps();
  };

  std::vector<Direction> directions;
  {
    Differences differences(body, level, start, options, Response::steps_taken, everywhere);
    if (options.radius == 0.0) look_at_small_tensors(level, sizes, differences, options);
    start.restore();  // the values of parameters that nothing has shifted
    directions = directions_of(level, sizes, options.directions, options.seed);
    report.directions = static_cast<int64_t>(directions.size());
    report.exact_directions = report.directions == numel(level.parameters);
    report.steps_taken = compare(level, g, directions, differences);
    add_cost(differences);
  }
  if (options.resolve_steps > 0) {
    try {
      Differences differences(body, level, start, options, Response::solved_anew, everywhere);
      compare_with_levels_solved_anew(report, g, directions, differences, level);
      add_cost(differences);
    } catch (const CheckpointError&) {
      throw;
    } catch (const Error& error) {
      report.resolve_failure = error.what();
    } catch (const std::exception& error) {
      if (!is_libtorch(error)) throw;
      report.resolve_failure = words_of(error);
    }
  }

  start.restore();
  for (const auto& each : body.levels.all)
    if (each->analytic) report.analytic.push_back(check_analytic(body, *each, options.seed));
  start.finish();
  return report;
}

CheckReport check_hypergradient(Engine& engine, const CheckOptions& options) {
  return naming<Error>([] { return std::string("check_hypergradient"); },
                       [&] { return checked(engine, options); });
}

}  // namespace mlo
