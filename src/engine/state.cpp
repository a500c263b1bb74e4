#include "precompiled.h"

#include "engine/body.h"
#include "mlo/error.h"
#include "optim/fused.h"
#include "optim/settings.h"
#include "tensors/described.h"
#include "text.h"

#include <torch/csrc/api/include/torch/serialize.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>

#include <cstring>
#include <sstream>
#include <typeinfo>

namespace mlo {
namespace {

constexpr int64_t kStateVersion =
    2;  // 1: without settings and frozen parameters, with the seed as "engine/seed"

// The archive that LibTorch's own optimizers write, with the parameters called by their position
// where LibTorch takes their addresses: so the same state gives the same bytes in every process.
void write_by_position(const torch::optim::Optimizer& optimizer,
                       torch::serialize::OutputArchive& archive) {
  using torch::serialize::OutputArchive;
  OutputArchive states(archive.compilation_unit()), groups(archive.compilation_unit());
  const auto count = [](std::size_t n) {
    return at::scalar_tensor(static_cast<int64_t>(n), at::kLong);
  };
  const auto& param_groups = optimizer.param_groups();
  groups.write("param_groups/size", count(param_groups.size()));
  std::size_t position = 0;
  for (std::size_t g = 0; g < param_groups.size(); ++g) {
    OutputArchive group(archive.compilation_unit()), options(archive.compilation_unit());
    const Tensors& parameters = param_groups[g].params();
    group.write("params/size", count(parameters.size()));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const std::string key = message("{}", ++position);
      group.write(message("params/{}", i), c10::IValue(key));
      const auto found = optimizer.state().find(parameters[i].unsafeGetTensorImpl());
      if (found == optimizer.state().end()) continue;
      OutputArchive state(archive.compilation_unit());
      found->second->serialize(state);
      states.write(key, state);
    }
    param_groups[g].options().serialize(options);
    group.write("options", options);
    groups.write(message("param_groups/{}", g), group);
  }
  archive.write("pytorch_version", c10::IValue("1.5.0"));
  archive.write("state", states);
  archive.write("param_groups", groups);
}

bool is_of_libtorch(const torch::optim::Optimizer& optimizer) {
  using namespace torch::optim;
  for (const std::type_info* known :
       {&typeid(SGD), &typeid(Adam), &typeid(AdamW), &typeid(RMSprop), &typeid(Adagrad),
        &typeid(detail::FusedSgd), &typeid(detail::FusedAdam), &typeid(detail::FusedAdamW)})
    if (typeid(optimizer) == *known) return true;
  return false;
}

at::Tensor saved_optimizer(torch::optim::Optimizer& optimizer) {
  std::ostringstream stream;
  torch::serialize::OutputArchive archive;
  if (is_of_libtorch(optimizer)) {
    write_by_position(optimizer, archive);
  } else {
    optimizer.save(archive);  // a class of the user's own may have more to save
  }
  archive.save_to(stream);
  const std::string bytes = stream.str();
  at::Tensor tensor = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

void read_archive(torch::optim::Optimizer& optimizer, const at::Tensor& saved) {
  const at::Tensor bytes = saved.contiguous();
  std::istringstream stream(std::string(static_cast<const char*>(bytes.const_data_ptr()),
                                        static_cast<std::size_t>(bytes.numel())));
  torch::serialize::InputArchive archive;
  archive.load_from(stream);
  optimizer.load(archive);
}

// The options as they are before `read_archive` brings the saved ones.
std::vector<std::unique_ptr<torch::optim::OptimizerOptions>> options_of(
    const torch::optim::Optimizer& optimizer) {
  std::vector<std::unique_ptr<torch::optim::OptimizerOptions>> all;
  for (const auto& group : optimizer.param_groups()) all.push_back(group.options().clone());
  return all;
}

bool names_below(const std::set<std::string>& names, const std::string& prefix) {
  const auto first = names.lower_bound(prefix);
  return first != names.end() && first->compare(0, prefix.size(), prefix) == 0;
}

void load_optimizer(Level& level, const State& state, const std::string& prefix,
                    const std::set<std::string>& changed) {
  torch::optim::Optimizer& optimizer = *level.optimizer;
  const std::string setting = level.name + ".optimizer";
  const bool anew = changed.count(setting) != 0 || changed.count(setting + ".groups") != 0;
  const bool own_options =
      anew || names_below(changed, setting + ".") || changed.count(level.name + ".schedule") != 0;
  auto options = own_options ? options_of(optimizer) : decltype(options_of(optimizer)){};
  optimizer.state()
      .clear();  // load leaves what the archive does not have: moments from before the first step
  if (const at::Tensor& saved = state.tensor(prefix + "optimizer"); !anew) {
    try {
      read_archive(optimizer, saved);
    } catch (const std::exception&) {  // LibTorch's words are of archives and assertions
      refuse<CheckpointError>(
          "{} is no state that {} with these {} parameter groups can read: it is of "
          "another class or grouping, or damaged; resume with the optimizer that the checkpoint "
          "was made with",
          quoted(prefix + "optimizer"), detail::class_name(optimizer),
          optimizer.param_groups().size());
    }
  }
  if (!own_options) return;
  const int64_t steps = level.counters.steps;
  for (std::size_t g = 0; g < options.size(); ++g) {
    if (level.options.schedule && steps > 0)
      options[g]->set_lr(level.base_learning_rates[g] * level.options.schedule(steps - 1));
    optimizer.param_groups()[g].set_options(std::move(options[g]));
  }
}

std::string prefix_of(const Level& level) { return "level/" + level.name + "/"; }
std::string parameter_key(const Level& level, std::size_t i) {
  return prefix_of(level) + "parameter/" + level.parameter_names[i];
}
std::string untrained_key(const Untrained& untrained, std::size_t i) {
  return i < untrained.buffers() ? message("buffer/{}", i)
                                 : message("frozen/{}", i - untrained.buffers());
}

std::size_t saved_untrained(const State& state, const Untrained& untrained) {
  return state.integer("engine/version") == 1 ? untrained.buffers() : untrained.live().size();
}

std::string joined(const Graph& graph, const std::vector<std::size_t>& nodes) {
  std::string names;
  for (const std::size_t node : nodes) names += graph.nodes[node].name + "\n";
  return names;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// Keys of another State under a prefix.
void set_all(State& state, const std::string& prefix, const State& part) {
  for (const auto& [key, value] : part.values()) state.set(prefix + key, value);
}

void check_tensor(const State& state, const std::string& key, const at::Tensor& like) {
  const at::Tensor& saved = state.tensor(key);
  require<CheckpointError>(
      saved.defined(), "the checkpoint holds {} undefined; take another checkpoint", quoted(key));
  if (saved.sizes() == like.sizes() && saved.scalar_type() == like.scalar_type()) return;
  refuse<CheckpointError>(
      "the checkpoint holds {} as {} {}, this engine has {} {}; build the engine with the models "
      "it was saved from",
      quoted(key), c10::toString(saved.scalar_type()), shape_of(saved.sizes()),
      c10::toString(like.scalar_type()), shape_of(like.sizes()));
}

}  // namespace

State Engine::Body::state() const {
  State state;
  state.set("engine/version", kStateVersion);
  state.set("engine/steps", steps);
  for (auto& [name, value] : settings()) state.set("settings/" + name, value);
  std::string names;
  for (const auto& level : levels.all) names += level->name + "\n";
  state.set("engine/levels", names);
  state.set("early_stopping/has_best", static_cast<int64_t>(has_best));
  state.set("early_stopping/best", best);
  state.set("early_stopping/without_improvement", validations_without_improvement);
  const Untrained& untrained = levels.untrained;
  state.set("buffers", static_cast<int64_t>(untrained.buffers()));
  state.set("frozen", static_cast<int64_t>(untrained.live().size() - untrained.buffers()));
  for (std::size_t i = 0; i < untrained.live().size(); ++i)
    state.set(untrained_key(untrained, i), untrained.live()[i].detach().clone());

  for (const auto& level : levels.all) {
    const std::string prefix = prefix_of(*level);
    state.set(prefix + "reads",
              joined(graph, graph.nodes[level->index].reads));  // later batches may have shown some
    state.set(prefix + "parameters", static_cast<int64_t>(level->parameters.size()));
    for (std::size_t i = 0; i < level->parameters.size(); ++i)
      state.set(parameter_key(*level, i), level->parameters[i].detach().clone());
    state.set(prefix + "optimizer", saved_optimizer(*level->optimizer));
    const Counters& counters = level->counters;
    state.set(prefix + "steps", counters.steps);
    state.set(prefix + "forwards", counters.forwards);
    state.set(prefix + "backwards", counters.backwards);
    state.set(prefix + "visits", counters.visits);
    state.set(prefix + "hessian_products", counters.hessian_products);
    state.set(prefix + "mixed_products", counters.mixed_products);
    // Batches that build() has drawn and no step has used are drawn again.
    const auto unused =
        static_cast<int64_t>(level->options.data.empty() ? 0 : level->past.pending.size());
    state.set(prefix + "batches", level->batches - unused);
    state.set(prefix + "epoch", level->epoch);
    state.set(prefix + "loss", self.loss(level->name));
    if (level->options.data.source()) {
      State data;
      level->options.data.source()->save(data, "");
      set_all(state, prefix + "data/", level->past.pending.empty() ? data : *level->past.unread);
    }
    level->options.best_response->save(state, prefix + "method/");
  }
  return state;
}

void Engine::Body::check_state(const State& state) const {
  const int64_t version = state.integer("engine/version");
  require<CheckpointError>(
      version >= 1 && version <= kStateVersion,
      "the checkpoint's state is of version {}, this library knows 1 to {}; use a newer mlo",
      version, kStateVersion);
  const std::vector<std::string> theirs = lines_of(state.text("engine/levels")),
                                 ours = self.level_names();
  require<CheckpointError>(theirs == ours,
                           "the checkpoint is of the levels {}, this engine has {}; add the same "
                           "levels in the same order",
                           listed(theirs), listed(ours));
  const Untrained& untrained = levels.untrained;
  const auto check_count = [&state](const std::string& key, const char* what, std::size_t here) {
    const int64_t saved = state.integer(key);
    require<CheckpointError>(saved == static_cast<int64_t>(here),
                             "the checkpoint holds {} {}, this engine's modules have {}; build the "
                             "engine with the models it was saved from",
                             saved, what, here);
  };
  check_count("buffers", "buffers", untrained.buffers());
  if (version > 1)
    check_count("frozen", "frozen parameters", untrained.live().size() - untrained.buffers());
  for (std::size_t i = 0; i < saved_untrained(state, untrained); ++i)
    check_tensor(state, untrained_key(untrained, i), untrained.live()[i]);
  for (const auto& level : levels.all) {
    const int64_t taken = state.integer(prefix_of(*level) + "steps");
    require<CheckpointError>(taken >= 0,
                             "{} is {} in the state, expected at least 0; take another checkpoint",
                             quoted(prefix_of(*level) + "steps"), taken);
    const int64_t saved = state.integer(prefix_of(*level) + "parameters");
    require<CheckpointError>(saved == static_cast<int64_t>(level->parameters.size()),
                             "the checkpoint holds {} parameters of level {}, this engine has {}; "
                             "build the engine with the models it was saved from",
                             saved, quoted(level->name), level->parameters.size());
    for (std::size_t i = 0; i < level->parameters.size(); ++i)
      check_tensor(state, parameter_key(*level, i), level->parameters[i]);
  }
}

void Engine::Body::apply_reads(const State& state, const std::set<std::string>& changed) {
  bool same = true;
  for (auto& node : graph.nodes) {
    if (changed.count(node.name + ".reads") != 0 || changed.count(node.name + ".constant") != 0)
      continue;
    std::vector<std::size_t> reads;
    for (const std::string& name : lines_of(state.text(message("level/{}/reads", node.name))))
      reads.push_back(levels.find(name).index);
    same &= reads == node.reads;
    node.reads = std::move(reads);
  }
  if (!same) plan();
}

void Engine::Body::load_state(const State& incoming, const LoadOptions& load) {
  const ExclusiveGuard exclusive(*this);
  check_state(incoming);
  const std::set<std::string> changed = changes(incoming, load);
  const State before = state();
  const uint64_t seed = options.seed;
  const auto words = [](const std::exception& error) {
    return is_libtorch(error) ? words_of(error) : std::string(error.what());
  };
  try {
    apply_state(incoming, changed);
  } catch (const std::exception& error) {
    options.seed = seed;
    try {
      apply_state(before);
    } catch (const std::exception& second) {
      broken = std::current_exception();
      refuse<CheckpointError>(
          "the checkpoint could not be applied: {}; nor could the engine be put back as it was: "
          "{}; build it anew",
          words(error), words(second));
    }
    refuse<CheckpointError>("the checkpoint could not be applied, the engine is as it was: {}",
                            words(error));
  }
}

// `changed`: the position of other data is taken over where it fits.
void Engine::Body::apply_data(Level& level, const State& state, bool changed) {
  BatchSource* source = level.options.data.source();
  State own;
  if (source && changed && level.past.pending.empty()) source->save(own, "");
  if (source && changed && !level.past.pending.empty()) own = *level.past.unread;
  level.past.pending.clear();
  level.past.unread.reset();
  if (!source) return;
  try {
    source->load(state, prefix_of(level) + "data/");
  } catch (const CheckpointError&) {
    if (!changed) throw;
    source->load(own, "");
    level.epoch = source->epoch();
  }
}

void Engine::Body::apply_state(const State& state, const std::set<std::string>& changed) {
  const at::NoGradGuard no_grad;
  begin_cycle();
  for (std::size_t i = 0; i < saved_untrained(state, levels.untrained); ++i)
    levels.untrained.live()[i].copy_(state.tensor(untrained_key(levels.untrained, i)));
  for (const auto& level : levels.all) {
    const std::string prefix = prefix_of(*level);
    level->values.about_to_change();
    for (std::size_t i = 0; i < level->parameters.size(); ++i)
      level->parameters[i].copy_(state.tensor(parameter_key(*level, i)));
    Counters counters = level->counters;
    counters.steps = state.integer(prefix + "steps");
    counters.forwards = state.integer(prefix + "forwards");
    counters.backwards = state.integer(prefix + "backwards");
    counters.visits = state.integer(prefix + "visits");
    counters.hessian_products = state.integer(prefix + "hessian_products");
    counters.mixed_products = state.integer(prefix + "mixed_products");
    level->counters = counters;
    load_optimizer(*level, state, prefix, changed);
    level->batches = state.integer(prefix + "batches");
    level->epoch = state.integer(prefix + "epoch");
    level->past.last_loss = at::scalar_tensor(state.real(prefix + "loss"), at::kDouble);
    level->past.last_metrics.clear();
    apply_data(*level, state, changed.count(level->name + ".data") != 0);
    if (changed.count(level->name + ".method") == 0)
      level->options.best_response->load(state, prefix + "method/");
  }
  if (state.has("engine/seed")) options.seed = static_cast<uint64_t>(state.integer("engine/seed"));
  steps = state.integer("engine/steps");
  const bool anew = changed.count("engine.early_stopping") != 0;
  has_best = !anew && state.integer("early_stopping/has_best") != 0;
  best = anew ? 0.0 : state.real("early_stopping/best");
  validations_without_improvement = anew ? 0 : state.integer("early_stopping/without_improvement");
  apply_reads(state, changed);
}

}  // namespace mlo
