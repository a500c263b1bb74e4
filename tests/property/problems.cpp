#include "property/problems.h"

#include "proof/curved.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <random>
#include <set>
#include <sstream>

namespace mlo::testing {
namespace {

constexpr int64_t kOwn = 7;  // used elements of a level
constexpr int64_t kFeatures = 5;

at::Tensor generator_state() { return at::detail::getDefaultCPUGenerator().get_state(); }
void set_generator_state(const at::Tensor& state) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  generator.set_state(state);
}

class Chance {
 public:
  explicit Chance(uint64_t seed) : random_(seed) {}
  bool of(double probability) {
    return std::uniform_real_distribution<>(0.0, 1.0)(random_) < probability;
  }
  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  double number(double low, double high) {
    return std::uniform_real_distribution<>(low, high)(random_);
  }
  template <class Item>
  Item one_of(std::initializer_list<Item> items) {
    return items.begin()[between(0, static_cast<int64_t>(items.size()) - 1)];
  }

 private:
  std::mt19937_64 random_;
};

Setup random_optimizer(Chance& chance, std::size_t parameters) {
  Setup setup{"", chance.one_of({Kind::sgd, Kind::adam, Kind::adamw}), {}};
  const std::size_t groups = chance.of(0.3) ? parameters : 1;
  for (std::size_t i = 0; i < groups; ++i) {
    Group group{.lr = chance.number(0.02, 0.2)};
    if (chance.of(0.4)) group.weight_decay = chance.number(0.01, 0.3);
    if (setup.kind == Kind::sgd && chance.of(0.6)) {
      group.momentum = chance.number(0.3, 0.9);
      group.nesterov = chance.of(0.4);
      if (!group.nesterov && chance.of(0.4)) group.dampening = chance.number(0.1, 0.6);
    }
    if (setup.kind != Kind::sgd) {
      group.beta1 = chance.number(0.0, 0.9);
      group.beta2 = chance.number(0.9, 0.99);
    }
    setup.groups.push_back(group);
  }
  return setup;
}

struct SpecProblem final : Problem {
  SpecProblem(std::shared_ptr<World> the_world, std::size_t k)
      : Problem(trained(*the_world, k)), world(std::move(the_world)), level(k) {}
  static Trains trained(const World& world, std::size_t k) {
    Trains result;
    for (std::size_t i = 0; i < world.parameters[k].size(); ++i)
      result.add("theta" + std::to_string(i), world.parameters[k][i]);
    return result;
  }
  Evaluation loss(const Batch& batch) override {
    World::Drawn drawn{generator_state(), {}};
    const at::Tensor value = world->loss(level, world->parameters, batch[0], drawn);
    world->recent[level].push_back(drawn);
    return value;
  }
  // Before its own evaluations the list has those of probes.
  void on_gradient(Tensors&) override {
    auto& recent = world->recent[level];
    world->steps[level].emplace_back(recent.end() - world->spec.levels[level].accumulate,
                                     recent.end());
    recent.clear();
  }
  void on_step() override { seen += world->parameters[level][0].sum().item<double>(); }
  void on_inner_loop_start() override { seen = 0.0; }

  std::shared_ptr<World> world;
  const std::size_t level;
  double seen = 0.0;
};

OptimizerFactory optimizer_of(const LevelSpec& level) {
  const Group& g = level.optimizer.groups[0];
  if (!level.fused)
    return [setup = level.optimizer](const Tensors& parameters) {
      return make_optimizer(setup, parameters);
    };
  if (level.optimizer.kind == Kind::sgd)
    return sgd({.lr = g.lr,
                .momentum = g.momentum,
                .dampening = g.dampening,
                .weight_decay = g.weight_decay,
                .nesterov = g.nesterov});
  const AdamOptions options{
      .lr = g.lr, .beta1 = g.beta1, .beta2 = g.beta2, .eps = g.eps, .weight_decay = g.weight_decay};
  return level.optimizer.kind == Kind::adam ? adam(options) : adamw(options);
}

std::unique_ptr<Method> method_of(const LevelSpec& level) {
  switch (level.method) {
    case LevelSpec::How::one_step_kept: return one_step();
    case LevelSpec::How::one_step_fresh: return one_step({.keep_graph = false});
    case LevelSpec::How::unrolled: return unrolled();
    case LevelSpec::How::unrolled_kept: break;
  }
  return unrolled(exact_oracle());
}

Tensors gradient(const at::Tensor& loss, const Tensors& wrt, bool create_graph) {
  return torch::autograd::grad({loss}, wrt, {}, /*retain_graph=*/true, create_graph,
                               /*allow_unused=*/true);
}

}  // namespace

Spec random_spec(uint64_t seed) {
  Chance chance(seed);
  Spec spec;
  spec.seed = seed;
  const auto count = static_cast<std::size_t>(chance.between(2, 4));
  const std::size_t tops = count > 2 && chance.of(0.25) ? 2 : 1;
  const std::size_t lower = count - tops;
  spec.levels.resize(count);
  std::vector<char> read(count, 0);
  for (std::size_t k = 0; k < lower; ++k) {
    LevelSpec& level = spec.levels[k];
    for (std::size_t j = 0; j < k; ++j)
      if (chance.of(0.5)) {
        level.reads.push_back(j);
        read[j] = 1;
      }
    for (std::size_t u = lower; u < count; ++u)
      if (chance.of(k == 0 ? 0.9 : 0.5)) level.reads.push_back(u);
  }
  // A game of its own at the bottom: level 1 sweeps over level 0, and neither responds to a top.
  const bool game = lower > 1 && chance.of(0.2);
  if (game) {
    spec.levels[0].reads = {1};
    spec.levels[1].reads = {0};
    read[0] = 1;
  }
  for (std::size_t u = lower; u < count; ++u) {
    LevelSpec& level = spec.levels[u];
    level.top = tops > 1;
    for (std::size_t k = 0; k < lower; ++k)
      if (chance.of(0.5) || (u + 1 == count && !read[k])) {
        level.reads.push_back(k);
        read[k] = 1;
      }
    if (level.reads.empty()) level.reads.push_back(0);
  }
  for (std::size_t k = game ? 2 : 1; k < lower; ++k)
    for (std::size_t j = 0; j < k; ++j) {
      auto& reads = spec.levels[k].reads;
      // The level is reached by another way, or it would not step.
      const auto& last = spec.levels.back().reads;
      const auto at = std::find(reads.begin(), reads.end(), j);
      if (at != reads.end() && std::find(last.begin(), last.end(), j) != last.end() &&
          chance.of(0.25)) {
        reads.erase(at);
        spec.levels[k].constant.push_back(j);
      }
    }
  for (std::size_t k = 0; k < count; ++k) {
    LevelSpec& level = spec.levels[k];
    level.unused = chance.of(0.25);
    level.dropout = chance.of(0.35) ? chance.number(0.1, 0.5) : 0.0;
    level.choice = chance.one_of(
        {LevelSpec::Choice::none, LevelSpec::Choice::largest, LevelSpec::Choice::random});
    level.optimizer = random_optimizer(chance, level.unused ? 3 : 2);
    level.fused = level.optimizer.groups.size() == 1 && chance.of(0.5);
    level.accumulate = chance.between(1, 3);
    level.clip_norm = chance.of(0.35) ? chance.number(0.05, 0.8) : 0.0;
    using Rate = LevelSpec::Rate;
    level.schedule =
        chance.one_of({Rate::constant, Rate::constant, Rate::warmup, Rate::decay, Rate::cosine});
    using How = LevelSpec::How;
    level.method =
        chance.one_of({How::one_step_kept, How::one_step_fresh, How::unrolled, How::unrolled_kept});
    // Several steps of what stands on no other moving level: the others' derivative would not be
    // that of the steps.
    const bool alone =
        level.constant.empty() && std::all_of(level.reads.begin(), level.reads.end(),
                                              [&](std::size_t j) { return j >= lower; });
    if (k < lower && (alone || (game && k == 0))) level.unroll = chance.between(1, 3);
  }
  return spec;
}

std::string Spec::to_string() const {
  std::ostringstream text;
  text << "MLO_PROPERTY_SEED=" << seed << "\n";
  for (std::size_t k = 0; k < levels.size(); ++k) {
    const LevelSpec& level = levels[k];
    text << "  level " << k << (level.top ? " (top)" : "") << " reads";
    for (const std::size_t j : level.reads) text << " " << j;
    for (const std::size_t j : level.constant) text << " constant " << j;
    const Group& g = level.optimizer.groups[0];
    text << "; "
         << (level.optimizer.kind == Kind::sgd    ? "SGD"
             : level.optimizer.kind == Kind::adam ? "Adam"
                                                  : "AdamW")
         << " lr " << g.lr << " momentum " << g.momentum << " dampening " << g.dampening
         << (g.nesterov ? " nesterov" : "") << " decay " << g.weight_decay << ", "
         << level.optimizer.groups.size() << " groups" << (level.fused ? ", fused" : "")
         << "; unroll " << level.unroll << ", accumulate " << level.accumulate << ", clip "
         << level.clip_norm << ", dropout " << level.dropout << ", choice "
         << static_cast<int>(level.choice) << ", schedule " << static_cast<int>(level.schedule)
         << ", method " << static_cast<int>(level.method)
         << (level.unused ? ", unused parameter" : "") << "\n";
  }
  return text.str();
}

World::World(Spec the_spec)
    : spec(std::move(the_spec)), recent(spec.levels.size()), steps(spec.levels.size()) {
  torch::manual_seed(spec.seed);
  for (std::size_t k = 0; k < spec.levels.size(); ++k) {
    const LevelSpec& level = spec.levels[k];
    Tensors& list = parameters.emplace_back();
    list = {0.7 * at::randn({3}, kDouble), 0.7 * at::randn({2, 2}, kDouble)};
    if (level.unused) list.push_back(at::randn({2}, kDouble));
    for (auto& tensor : list) tensor.requires_grad_();
    const auto n = static_cast<int64_t>(1 + level.reads.size() + level.constant.size()) * kOwn;
    mix_.push_back(at::randn({kFeatures, n}, kDouble) / std::sqrt(static_cast<double>(kOwn)));
    turn_.push_back(at::randn({n, n}, kDouble) / static_cast<double>(n));
    data_.push_back(at::randn({64, kFeatures}, kDouble));
  }
}

at::Tensor World::rows(std::size_t k, int64_t i) const {
  const int64_t count = 1 + (3 * i + static_cast<int64_t>(k)) % 4;
  return data_[k].narrow(0, (5 * i) % 60, count);
}

Schedule World::schedule(std::size_t k) const {
  switch (spec.levels[k].schedule) {
    case LevelSpec::Rate::constant: break;
    case LevelSpec::Rate::warmup: return linear_warmup(4);
    case LevelSpec::Rate::decay: return step_decay({.every = 2, .factor = 0.7});
    case LevelSpec::Rate::cosine: return cosine({.steps = 20, .final_factor = 0.1});
  }
  return {};
}

at::Tensor World::loss(std::size_t k, const std::vector<Tensors>& theta, const at::Tensor& rows,
                       Drawn& drawn) const {
  const LevelSpec& level = spec.levels[k];
  Tensors lines = {theta[k][0], theta[k][1].reshape({-1})};
  for (const std::size_t j : level.reads)
    lines.insert(lines.end(), {theta[j][0], theta[j][1].reshape({-1})});
  for (const std::size_t j : level.constant)
    lines.insert(lines.end(), {theta[j][0].detach(), theta[j][1].detach().reshape({-1})});
  const at::Tensor x = at::cat(lines);
  at::Tensor features = mix_[k].mv(x).tanh();
  if (level.choice != LevelSpec::Choice::none) {
    if (!drawn.choice.defined())
      drawn.choice = replayed([&] {
        const at::Tensor scores =
            level.choice == LevelSpec::Choice::largest ? features.abs() : at::rand_like(features);
        return at::zeros_like(features).index_fill(0, std::get<1>(scores.topk(3)), 1.0);
      });
    features = features * drawn.choice;
  }
  if (level.dropout > 0.0) features = at::dropout(features, level.dropout, /*train=*/true);
  return at::softplus(rows.mv(features) + rows.sum(1)).mean() + 0.15 * x.dot(x) +
         0.2 * x.dot(turn_[k].mv(x)) + 0.02 * x.pow(4).sum();
}

std::unique_ptr<Engine> engine_of(const std::shared_ptr<World>& world, double factor) {
  auto engine = std::make_unique<Engine>(EngineOptions{.steps = 5, .seed = world->spec.seed});
  for (std::size_t k = 0; k < world->spec.levels.size(); ++k) {
    const LevelSpec& level = world->spec.levels[k];
    LevelOptions options;
    options.optimizer = optimizer_of(level);
    options.data = [raw = world.get(), k](int64_t i) { return Batch{raw->rows(k, i)}; };
    options.unroll = level.unroll;
    options.accumulate = level.accumulate;
    options.clip_norm = level.clip_norm;
    options.schedule = world->schedule(k);
    options.best_response = factor == 1.0 ? method_of(level) : faulty(method_of(level), factor);
    options.top = level.top;
    for (const std::size_t j : level.constant) options.constant.push_back(world->name(j));
    engine->add(world->name(k), std::make_shared<SpecProblem>(world, k), std::move(options));
  }
  engine->build();
  for (auto& list : world->recent) list.clear();
  return engine;
}

ByHand::ByHand(const World& world)
    : world_(world),
      taken_(world.spec.levels.size(), 0),
      batches_(world.spec.levels.size(), 0),
      stepped_(world.spec.levels.size(), 0) {
  for (std::size_t k = 0; k < world.spec.levels.size(); ++k) {
    values.push_back(clone(world.parameters[k]));
    updates_.emplace_back(world.spec.levels[k].optimizer, values[k].size());
  }
}

void ByHand::begin() {
  for (auto& list : values)
    for (auto& tensor : list) tensor = tensor.detach().requires_grad_();
  for (auto& each : updates_) each.detach();
  std::fill(stepped_.begin(), stepped_.end(), 0);
}

void ByHand::cycle() {
  begin();
  for (std::size_t u = 0; u < values.size(); ++u) {
    if (!world_.spec.levels[u].top && u + 1 < values.size()) continue;
    advance(u);
    const Tensors total = gradient(
        loss(u, values, world_.steps[u][static_cast<std::size_t>(taken_[u])]), values[u], false);
    update(u, total);
    for (auto& tensor : values[u]) tensor = tensor.detach();
  }
}

ByHand::Derivative ByHand::hypergradient(std::size_t u) {
  begin();
  advance(u);
  const int64_t batches = batches_[u];
  Derivative result;
  result.total = gradient(loss(u, values, world_.recent[u]), values[u], false);
  batches_[u] = batches;
  std::vector<Tensors> constants(values.size());
  for (std::size_t k = 0; k < values.size(); ++k)
    for (const auto& tensor : values[k]) constants[k].push_back(tensor.detach());
  for (auto& tensor : constants[u]) tensor.requires_grad_();
  result.direct = gradient(loss(u, constants, world_.recent[u]), constants[u], false);
  for (Tensors* list : {&result.total, &result.direct})
    for (std::size_t i = 0; i < list->size(); ++i)
      if (!(*list)[i].defined()) (*list)[i] = at::zeros_like(values[u][i]).detach();
  return result;
}

// What u reads, directly or not, as constants or not, takes its steps; lower levels first.
void ByHand::advance(std::size_t u) {
  std::set<std::size_t> reached;
  const std::function<void(std::size_t)> reach = [&](std::size_t k) {
    const LevelSpec& level = world_.spec.levels[k];
    for (const auto* list : {&level.reads, &level.constant})
      for (const std::size_t j : *list)
        if (j < u && !world_.spec.levels[j].top && reached.insert(j).second) reach(j);
  };
  reach(u);
  for (const std::size_t k : reached) {
    if (stepped_[k]) continue;
    stepped_[k] = 1;
    for (int64_t i = 0; i < world_.spec.levels[k].unroll; ++i) {
      if (i > 0 &&
          !world_.spec.levels[k].is_unrolled()) {  // one step is the derivative of the last
        for (auto& tensor : values[k]) tensor = tensor.detach().requires_grad_();
        updates_[k].detach();
      }
      own_step(k);
    }
  }
}

void ByHand::own_step(std::size_t k) {
  update(k, gradient(loss(k, values, world_.steps[k].at(static_cast<std::size_t>(taken_[k]))),
                     values[k], true));
}

void ByHand::update(std::size_t k, const Tensors& g) {
  if (const Schedule schedule = world_.schedule(k)) updates_[k].rate = schedule(taken_[k]);
  values[k] = updates_[k](values[k], clipped(g, world_.spec.levels[k].clip_norm));
  ++taken_[k];
}

at::Tensor ByHand::loss(std::size_t k, const std::vector<Tensors>& theta,
                        const std::vector<World::Drawn>& drawn) {
  const int64_t parts = world_.spec.levels[k].accumulate;
  at::Tensor sum = at::zeros({}, kDouble);
  for (int64_t m = 0; m < parts; ++m) {
    World::Drawn same = drawn.at(static_cast<std::size_t>(m));
    set_generator_state(same.generator);
    sum = sum + world_.loss(k, theta, world_.rows(k, batches_[k]++), same);
  }
  return sum / static_cast<double>(parts);
}

}  // namespace mlo::testing
