#include "precompiled.h"

#include "level/level.h"

#include "libtorch_error.h"
#include "mlo/error.h"
#include "optim/settings.h"
#include "replay/random.h"
#include "tensors/described.h"
#include "text.h"

#include <ATen/MemoryOverlap.h>

#include <algorithm>
#include <unordered_set>

namespace mlo {
namespace {

void check_parameter(const std::string& who, const at::Tensor& parameter) {
  if (!at::isFloatingType(parameter.scalar_type()))
    refuse<ConfigError>("{} is of type {}; a trained parameter is floating point", who,
                        c10::toString(parameter.scalar_type()));
  require(!parameter.is_meta(),
          "{} lies on the meta device and has no values; make it on a real one before Engine::add",
          who);
  require(!parameter.is_inference(),
          "{} was made under c10::InferenceMode and cannot be trained; make it outside", who);
  if (parameter.layout() != at::kStrided)
    refuse<ConfigError>("{} is {}; a trained parameter is dense, as to_dense() makes it", who,
                        described(parameter));
  if (at::has_internal_overlap(parameter) == at::MemOverlap::Yes)
    refuse<ConfigError>(
        "{} of shape {} is expanded: some of its elements are one number in memory, which no step "
        "can write; train what it was expanded from, or its clone()",
        who, shape_of(parameter.sizes()));
}

}  // namespace

std::string where(const Level& level) {
  return message("level {} at step {}", quoted(level.name), level.counters.steps);
}

Level::Level(std::string level_name, std::shared_ptr<Problem> the_problem, LevelOptions the_options)
    : name(std::move(level_name)),
      stream(name_key(name)),
      problem(std::move(the_problem)),
      analytic(dynamic_cast<AnalyticDerivatives*>(problem.get())),
      options(std::move(the_options)),
      values({}) {
  std::unordered_set<const void*> seen;  // a tied parameter counts once
  for (const auto& [parameter_name, parameter] : problem->trained().parameters()) {
    if (!parameter.requires_grad() || !seen.insert(parameter.unsafeGetTensorImpl()).second)
      continue;
    check_parameter(message("level {}: parameter {}", quoted(name), quoted(parameter_name)),
                    parameter);
    parameter_names.push_back(parameter_name);
    parameters.push_back(parameter);
    metas_.push_back({parameter.sizes().vec(), parameter.scalar_type(), parameter.device()});
  }
  require(!parameters.empty(),
          "level {}: no trainable parameters ({} given, all frozen); pass modules or leaf tensors "
          "with requires_grad to trains(…)",
          quoted(name), problem->trained().parameters().size());
  if (options.precision == Precision::bfloat16)
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (parameters[i].scalar_type() != at::kFloat)
        refuse<ConfigError>(
            "level {}: LevelOptions::precision = bfloat16 with parameter {} of type {}; it is "
            "for parameters in float32, which stay so",
            quoted(name), mlo::quoted(parameter_names[i]),
            c10::toString(parameters[i].scalar_type()));
  values = Values(parameters);
  frozen.assign(parameters.size(), 0);
  makes_gradient = !options.constant.empty();

  optimizer =
      naming<ConfigError>([this] { return message("level {}: the optimizer", quoted(name)); },
                          [this] { return options.optimizer(parameters); });
  require(optimizer != nullptr,
          "level {}: the optimizer factory returned nothing; return a torch::optim::Optimizer "
          "over the parameters it is given",
          quoted(name));
  for (auto& group : optimizer->param_groups())
    base_learning_rates.push_back(group.options().get_lr());
  optimizer_settings = detail::settings_of(*optimizer);
  rule = UpdateRule::of(*optimizer, parameters, why_no_rule);
}

Level::~Level() = default;

void Level::check_parameters() const {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto& parameter = parameters[i];
    const auto& meta = metas_[i];
    if (parameter.sizes() == at::IntArrayRef(meta.sizes) && parameter.scalar_type() == meta.dtype &&
        parameter.device() == meta.device)
      continue;
    refuse<ConfigError>(
        "level {}: parameter {} was {} when the level was added and is now {}; convert or move "
        "modules before Engine::add",
        quoted(name), quoted(parameter_names[i]), described(meta.dtype, meta.sizes, meta.device),
        described(parameter));
  }
}

void Level::set_gradients(bool on) {
  if (gradients_on == on) return;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    parameters[i].set_requires_grad(on && !frozen[i]);
  gradients_on = on;
}

void Level::look_at_frozen() {
  for (std::size_t i = 0; i < parameters.size(); ++i)
    frozen[i] = parameters[i].requires_grad() ? 0 : 1;
}

std::vector<double> Level::learning_rates() const {
  std::unordered_map<const void*, double> by_parameter;
  for (auto& group : optimizer->param_groups())
    for (const auto& parameter : group.params())
      by_parameter[parameter.unsafeGetTensorImpl()] = group.options().get_lr();
  std::vector<double> rates;
  for (const auto& parameter : parameters)
    rates.push_back(by_parameter.at(parameter.unsafeGetTensorImpl()));
  return rates;
}

Level& Levels::find(const std::string& name) const {
  for (const auto& level : all)
    if (level->name == name) return *level;
  refuse<ConfigError>("no level is called {}; there are {}", quoted(name),
                      listed(all, [](const auto& level) { return level->name; }));
}

void Levels::collect() {
  untrained.clear();
  modules.clear();
  owner_.clear();
  std::unordered_set<const void*> seen;
  Tensors frozen;
  // Each after all below it, turned round at the end.
  const std::function<void(const std::shared_ptr<torch::nn::Module>&)> collect_module =
      [&](const auto& module) {
        if (!seen.insert(module.get()).second) return;
        for (const auto& child : module->children()) collect_module(child);
        modules.push_back(module);
      };
  for (const auto& level : all)
    for (const auto& parameter : level->parameters)
      owner_[parameter.unsafeGetTensorImpl()] = level.get();
  const auto add_frozen = [&](const at::Tensor& parameter) {
    const void* id = parameter.unsafeGetTensorImpl();
    if (owner_.find(id) == owner_.end() && seen.insert(id).second) frozen.push_back(parameter);
  };
  for (const auto& level : all) {
    for (const auto& [name, parameter] : level->problem->trained().parameters())
      add_frozen(parameter);
    for (const auto& root : level->problem->trained().modules()) {
      collect_module(root);
      for (const auto& buffer : root->buffers())
        if (buffer.defined() && seen.insert(buffer.unsafeGetTensorImpl()).second)
          untrained.add(buffer, /*buffer=*/true);
      for (const auto& parameter : root->parameters())
        if (parameter.defined()) add_frozen(parameter);
    }
  }
  for (const auto& parameter : frozen) untrained.add(parameter, /*buffer=*/false);
  std::reverse(modules.begin(), modules.end());
}

void Levels::set_gradients_for(const Level& level, const Tensors& wrt, const Tensors& also) {
  std::vector<char> wanted(all.size(), 0);
  for (const auto* list : {&wrt, &also}) {
    for (const auto& tensor : *list) {
      const auto owner = owner_.find(tensor.unsafeGetTensorImpl());
      if (owner != owner_.end()) wanted[owner->second->index] = 1;
    }
  }
  set_gradients(level, wanted);
}

void Levels::set_gradients(const Level& level, const std::vector<char>& on) {
  for (const auto& other : all)
    other->set_gradients(level.takes_gradients || on[other->index] != 0);
}

void Levels::set_all_gradients(bool on) {
  for (const auto& level : all) level->set_gradients(on);
}

void Levels::look_at_frozen() {
  for (const auto& level : all) level->look_at_frozen();
}

int64_t Levels::version() const {
  int64_t sum = 0;
  for (const auto& level : all)
    for (const auto& parameter : level->parameters) sum += parameter._version();
  return sum;
}

std::vector<char> Levels::modes() const {
  std::vector<char> result(modules.size());
  for (std::size_t i = 0; i < modules.size(); ++i) result[i] = modules[i]->is_training() ? 1 : 0;
  return result;
}

void Levels::set_modes(const std::vector<char>& modes) {
  // train(bool) recurses, so what is above comes first. A user's own train may reach modules that
  // are not below, hence again.
  for (std::size_t pass = 0; pass <= modules.size() && this->modes() != modes; ++pass)
    for (std::size_t i = 0; i < modules.size(); ++i)
      if (modules[i]->is_training() != (modes[i] != 0)) modules[i]->train(modes[i] != 0);
}

ThawGuard::ThawGuard(Levels& levels) : levels_(levels) {
  levels.set_all_gradients(false);
  for (const auto& level : levels.all)
    frozen_.push_back(std::exchange(level->frozen, std::vector<char>(level->parameters.size(), 0)));
  levels.set_all_gradients(true);
}

ThawGuard::~ThawGuard() {
  levels_.set_all_gradients(false);
  for (std::size_t i = 0; i < frozen_.size(); ++i) levels_[i].frozen = std::move(frozen_[i]);
  levels_.set_all_gradients(true);
}

}  // namespace mlo
