#include "precompiled.h"

#include "hypergradient/sweep.h"
#include "libtorch_error.h"
#include "mlo/error.h"
#include "tensors/described.h"
#include "text.h"

#include <algorithm>

namespace mlo {
namespace {

at::Tensor wide(const at::Tensor& tensor) { return widened({tensor}, {tensor}).front(); }

}  // namespace

/// One stop of the sweep as the level's method sees it.
class Sweep::VisitedLevel final : public Visit {
 public:
  VisitedLevel(Levels& levels, std::size_t upper, const Stop& stop, std::vector<Tensors>& adjoints)
      : levels_(levels),
        level_(levels[stop.level]),
        upper_(upper),
        stop_(stop),
        adjoints_(adjoints) {
    const std::size_t wanted = level_.needs.trajectory ? level_.past.taken[upper_] : 1;
    TORCH_INTERNAL_ASSERT(wanted >= 1 && wanted <= level_.past.records.size(), "level ",
                          level_.name, ": ", wanted, " steps wanted, ", level_.past.records.size(),
                          " recorded");
    first_ = level_.past.records.size() - wanted;
  }

  const std::string& level() const override { return level_.name; }
  const std::string& upper() const override { return levels_[upper_].name; }
  const Tensors& adjoint() const override { return adjoints_[level_.index]; }
  const Tensors& targets() const override { return stop_.targets; }
  std::size_t steps() const override { return level_.past.records.size() - first_; }
  const StepRecord& step(std::size_t i) const override {
    if (i >= steps())
      refuse<Error>("level {}: Visit: step {} of {}; they are counted from 0", quoted(level_.name),
                    i, steps());
    return level_.past.records[first_ + i];
  }

  void subtract(const Tensors& products) override {
    if (const std::string why = misfit(products, stop_.targets, /*zeros=*/true); !why.empty())
      refuse<Error>(
          "Visit::subtract at level {}: {}; give one product for each target, in their order, of "
          "its shape",
          quoted(level_.name), why);
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < products.size(); ++i) {
      if (!products[i].defined()) continue;
      auto& adjoint = adjoints_[stop_.places[i].first][stop_.places[i].second];
      if (!adjoint.defined()) {  // of the upper level, whose own loss does not use this one
        adjoint = wide(-products[i]);
        continue;
      }
      // Out of place: what autograd returned may share memory with other gradients.
      adjoint = at::sub(adjoint, products[i].scalar_type() == adjoint.scalar_type()
                                     ? products[i]
                                     : products[i].to(adjoint.scalar_type()));
    }
  }

  std::unique_ptr<Probe> probe(std::size_t i, EvaluationPoint point) override {
    return Sweep::probe(levels_, level_, step(i), point, level_.needs.second_order);
  }

 private:
  Levels& levels_;
  Level& level_;
  const std::size_t upper_;
  const Stop& stop_;
  std::vector<Tensors>& adjoints_;
  std::size_t first_ = 0;
};

Sweep::Sweep(Levels& levels, const Graph& graph, std::size_t upper)
    : levels_(levels),
      upper_(upper),
      order_(graph.responding(upper)),
      wrt_(levels[upper].parameters) {
  for (const std::size_t k : order_) {
    if (contains(graph.nodes[upper].reads, k)) {
      direct_.push_back(k);
      wrt_.insert(wrt_.end(), levels[k].parameters.begin(), levels[k].parameters.end());
    }
    Stop stop{k, {}, {}};
    for (const std::size_t j : graph.nodes[k].reads) {
      if (j != upper && !contains(order_, j)) continue;
      for (std::size_t i = 0; i < levels[j].parameters.size(); ++i) {
        stop.targets.push_back(levels[j].parameters[i]);
        stop.places.emplace_back(j, i);
      }
    }
    stops_.push_back(std::move(stop));
  }
}

std::unique_ptr<Probe> Sweep::probe(Levels& levels, Level& level, const StepRecord& record,
                                    EvaluationPoint point, bool second_order) {
  return std::unique_ptr<Probe>(new Probe(levels, level, record, point, second_order));
}

const Tensors& Sweep::targets(std::size_t k) const {
  return std::find_if(stops_.begin(), stops_.end(),
                      [k](const Stop& stop) { return stop.level == k; })
      ->targets;
}

Tensors Sweep::total_derivative(const Tensors& gradient) {
  std::vector<Tensors> adjoints(levels_.size());
  auto part = gradient.begin();
  const auto take = [&](std::size_t level) {
    const auto begin = part;
    part += static_cast<std::ptrdiff_t>(levels_[level].parameters.size());
    return Tensors(begin, part);
  };
  // Of the upper level what nobody uses stays undefined: optimizers skip it, where zeros would
  // still be decayed.
  adjoints[upper_] = take(upper_);
  for (auto& adjoint : adjoints[upper_])
    if (adjoint.defined()) adjoint = wide(adjoint);
  for (const std::size_t k : direct_) adjoints[k] = widened(take(k), levels_[k].parameters);
  for (const std::size_t k : order_)
    if (adjoints[k].empty()) adjoints[k] = zeros_like(levels_[k].parameters);

  for (const Stop& stop : stops_) {
    Level& level = levels_[stop.level];
    VisitedLevel visit(levels_, upper_, stop, adjoints);
    ++level.counters.visits;
    naming<Error>(
        [&] {
          return message("{}: the method {}", where(level),
                         quoted(level.options.best_response->name()));
        },
        [&] { level.options.best_response->visit(visit); });
    adjoints[stop.level].clear();
  }
  return std::move(adjoints[upper_]);
}

}  // namespace mlo
