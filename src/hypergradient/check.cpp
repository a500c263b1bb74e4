#include "precompiled.h"

#include "mlo/hypergradient/check.h"

#include "engine_body.h"
#include "hypergradient/sweep.h"
#include "mlo/error.h"

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
  if (gg == 0.0 && rr == 0.0) return {0.0, 1.0};
  return {std::sqrt(difference / (rr > 0.0 ? rr : gg)), gg > 0.0 && rr > 0.0 ? gr / std::sqrt(gg * rr) : 0.0};
}

Comparison compare(const Tensors& g, const Tensors& r) {
  std::vector<double> flat[2];
  for (int side = 0; side < 2; ++side)
    for (const auto& tensor : side == 0 ? g : r) {
      const at::Tensor line = tensor.detach().to(at::kDouble).cpu().contiguous().view({-1});
      flat[side].insert(flat[side].end(), line.const_data_ptr<double>(), line.const_data_ptr<double>() + line.numel());
    }
  return compare(flat[0], flat[1]);
}

// Puts the engine back as it was, whatever happens in between.
class Unchanged {
 public:
  explicit Unchanged(Engine::Body& body) : body_(body), state_(body.state()) {}
  ~Unchanged() { again(); }
  void again() const { body_.apply_state(state_); }

 private:
  Engine::Body& body_;
  const State state_;
};

// How the lower levels' steps are taken again at a shifted point.
enum class Response { steps_taken, solved_anew };

class Differences {
 public:
  Differences(Engine::Body& body, Level& level, const Unchanged& start, const CheckOptions& options)
      : body_(body), level_(level), start_(start), options_(options) {}

  // [L(θ + ρd) − L(θ − ρd)] / 2ρ, the levels below responding.
  double along(const Tensors& direction, double rho, Response response) const {
    return (loss_at(direction, rho, response) - loss_at(direction, -rho, response)) / (2.0 * rho);
  }

 private:
  double loss_at(const Tensors& direction, double shift, Response response) const {
    start_.again();
    const at::NoGradGuard no_grad;
    level_.values.about_to_change();
    for (std::size_t i = 0; i < direction.size(); ++i)
      level_.parameters[i].add_(direction[i].to(level_.parameters[i].scalar_type()), shift);
    if (response == Response::steps_taken) {
      body_.advance_below(level_);
    } else {
      solve_below();
    }
    double loss = 0.0;
    std::vector<Draw> draws = body_.draw(level_);
    for (Draw& draw : draws) loss += evaluate(level_, draw, /*replay=*/false).loss.item<double>();
    return loss / static_cast<double>(draws.size());
  }

  // Each responding level takes many own steps, the ones that are read first; none waits for another.
  void solve_below() const {
    const auto order = level_.sweep ? level_.sweep->order() : std::vector<std::size_t>{};
    for (auto k = order.rbegin(); k != order.rend(); ++k)
      for (int64_t i = 0; i < options_.resolve_steps; ++i)
        body_.apply(body_.levels[*k], body_.total_gradient(body_.levels[*k], nullptr), nullptr);
  }

  Engine::Body& body_;
  Level& level_;
  const Unchanged& start_;
  const CheckOptions& options_;
};

// The problem's own derivatives against automatic differentiation, on the first batch and a random direction.
CheckReport::Analytic check_analytic(Engine::Body& body, Level& level, uint64_t seed) {
  CheckReport::Analytic result;
  result.level = level.name;
  std::vector<char> wanted(body.levels.size(), 0);
  wanted[level.index] = 1;
  Tensors wrt = level.parameters;
  for (const std::size_t j : body.graph.nodes[level.index].reads) {
    wanted[j] = 1;
    wrt.insert(wrt.end(), body.levels[j].parameters.begin(), body.levels[j].parameters.end());
  }
  Draw draw = body.draw(level).front();
  seed_generators(stream_key(seed, level.stream, -4, 0));
  Tensors v;
  for (const auto& parameter : level.parameters) v.push_back(at::randn_like(parameter.detach()));

  body.levels.set_gradients(wanted);
  const SecondOrderGuard attention(true);
  Tensors gradient, product;
  {
    const at::AutoGradMode with_gradients(true);
    gradient = differentiate(level, evaluate(level, draw, /*replay=*/false).loss, wrt, /*create_graph=*/true);
    at::Tensor inner;
    for (std::size_t i = 0; i < v.size(); ++i) {
      if (!gradient[i].defined() || !gradient[i].requires_grad()) continue;
      const at::Tensor term = (gradient[i] * v[i]).sum();
      inner = inner.defined() ? inner + term : term;
    }
    product.resize(wrt.size());
    if (inner.defined()) product = torch::autograd::grad({inner}, wrt, {}, true, false, /*allow_unused=*/true);
  }
  const at::NoGradGuard no_grad;
  result.product = compare(widened(known_product(level, draw, v, wrt), wrt), widened(product, wrt));
  Tensors own;
  if (known_gradient(level, draw, /*replay=*/true, wrt, own)) result.gradient = compare(widened(own, wrt), widened(gradient, wrt));
  return result;
}

}  // namespace

void CheckOptions::validate() const {
  if (directions < 1) throw ConfigError("CheckOptions: directions = " + std::to_string(directions) + "; it must be >= 1");
  if (!(radius >= 0.0) || !std::isfinite(radius))
    throw ConfigError("CheckOptions: radius = " + c10::str(radius) + "; it must be positive, or 0 for the default of the dtype");
  if (resolve_steps < 0)
    throw ConfigError("CheckOptions: resolve_steps = " + std::to_string(resolve_steps) + "; it must be >= 0 (0: not compared)");
}

CheckReport check_hypergradient(Engine& engine, const CheckOptions& options) {
  options.validate();
  engine.build();
  Engine::Body& body = EngineAccess::body(engine);
  const Exclusive exclusive(body);
  Level& level = options.level.empty() ? body.levels[body.tops.back()] : body.levels.find(options.level);
  const Unchanged start(body);

  CheckReport report;
  report.level = level.name;
  const int64_t count = numel(level.parameters);
  report.exact_directions = count <= options.directions;
  report.directions = report.exact_directions ? count : options.directions;

  body.begin_cycle();
  body.advance_below(level);
  const Tensors g = widened(body.total_gradient(level, nullptr), level.parameters);

  bool all_double = true;
  for (const auto& parameter : level.parameters) all_double &= parameter.scalar_type() == at::kDouble;
  const double relative = options.radius > 0.0 ? options.radius : (all_double ? 1e-5 : 1e-2);
  const double size = norm(level.parameters);
  const double rho = relative * (size > 0.0 ? size / std::sqrt(static_cast<double>(count)) : 1.0);

  const Differences differences(body, level, start, options);
  std::vector<double> ours, taken, resolved;
  for (int64_t i = 0; i < report.directions; ++i) {
    Tensors direction = zeros_like(level.parameters);
    if (report.exact_directions) {
      int64_t coordinate = i;
      for (auto& tensor : direction) {
        if (coordinate < tensor.numel()) {
          tensor.view({-1})[coordinate].fill_(1.0);
          break;
        }
        coordinate -= tensor.numel();
      }
    } else {
      seed_generators(stream_key(options.seed, level.stream, -5, i));
      for (auto& tensor : direction) tensor.normal_();
    }
    ours.push_back(dot(g, direction));
    taken.push_back(differences.along(direction, rho, Response::steps_taken));
    if (options.resolve_steps > 0) resolved.push_back(differences.along(direction, rho, Response::solved_anew));
  }
  report.steps_taken = compare(ours, taken);
  if (options.resolve_steps > 0) report.resolved = compare(ours, resolved);

  start.again();
  for (const auto& each : body.levels.all)
    if (each->analytic) report.analytic.push_back(check_analytic(body, *each, options.seed));
  return report;
}

std::string CheckReport::to_string() const {
  const auto line = [](const Comparison& comparison) {
    return c10::str("relative error ", comparison.relative_error, ", cosine ", comparison.cosine);
  };
  std::string text = "hypergradient of level '" + level + "' in " + std::to_string(directions) +
                     (exact_directions ? " coordinates\n" : " random directions\n");
  text += "  against the steps taken:     " + line(steps_taken) + "\n";
  if (resolved) text += "  against levels solved anew:  " + line(*resolved) + "\n";
  for (const auto& each : analytic) {
    text += "  analytic product of '" + each.level + "':  " + line(each.product) + "\n";
    if (each.gradient) text += "  analytic gradient of '" + each.level + "': " + line(*each.gradient) + "\n";
  }
  return text;
}

}  // namespace mlo
