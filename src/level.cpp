#include "precompiled.h"

#include "level.h"

#include "choices.h"
#include "gradients.h"
#include "hypergradient/dual_numbers.h"
#include "hypergradient/sweep.h"
#include "libtorch_error.h"
#include "mlo/error.h"
#include "optim/settings.h"
#include "random.h"
#include "text.h"

#include <ATen/Context.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

namespace mlo {

// Without a dispatch where it lies at hand.
double value_of(const at::Tensor& loss) {
  if (loss.is_cpu() && loss.scalar_type() == at::kFloat) return *loss.const_data_ptr<float>();
  if (loss.is_cpu() && loss.scalar_type() == at::kDouble) return *loss.const_data_ptr<double>();
  return loss.detach().item<double>();
}

namespace {

// Returns its value.
double check_loss(const Level& level, const at::Tensor& loss) {
  if (!loss.defined()) throw LossError(where(level) + ": the loss returned an undefined tensor; return a scalar");
  if (loss.is_meta())
    throw LossError(where(level) + ": the loss lies on the meta device and has no value; put modules and batches on a real one");
  if (loss.numel() != 1)
    throw LossError(where(level) + ": the loss has shape " + c10::str(loss.sizes()) +
                    "; return a scalar, for example loss.mean()");
  if (!at::isFloatingType(loss.scalar_type()))
    throw LossError(where(level) + ": the loss is of type " + std::string(c10::toString(loss.scalar_type())) +
                    "; return a floating point scalar");
  if (level.options.precision == Precision::bfloat16 && loss.scalar_type() != at::kFloat)
    throw LossError(where(level) + ": the loss is of type " + std::string(c10::toString(loss.scalar_type())) +
                    " at precision bfloat16; convert what the network returns to float32 before it is summed up, as in "
                    "network(x).to(torch::kFloat)");
  const double value = value_of(loss);
  if (!std::isfinite(value))
    throw NonFiniteError(where(level) + ": the loss is " + number(value) +
                         "; lower the learning rate, clip the gradient or check the data");
  return value;
}

void check_metrics(const Level& level, const Evaluation& evaluation) {
  for (const auto& [name, metric] : evaluation.metrics)
    if (!metric.defined() || metric.numel() != 1)
      throw LossError(where(level) + ": the metric '" + name + "' " +
                      (metric.defined() ? "has shape " + c10::str(metric.sizes()) : std::string("is an undefined tensor")) +
                      "; return a scalar beside the loss");
}

void check_parameter(const std::string& who, const at::Tensor& parameter) {
  const auto refuse = [&who](const std::string& what) { throw ConfigError(who + what); };
  if (!at::isFloatingType(parameter.scalar_type()))
    refuse(std::string(" is of type ") + c10::toString(parameter.scalar_type()) + "; a trained parameter is floating point");
  if (parameter.is_meta()) refuse(" lies on the meta device and has no values; make it on a real one before Engine::add");
  if (parameter.is_inference()) refuse(" was made under c10::InferenceMode and cannot be trained; make it outside");
  if (parameter.layout() != at::kStrided)
    refuse(c10::str(" has the layout ", parameter.layout(), "; a trained parameter is dense, as to_dense() makes it"));
  if (at::has_internal_overlap(parameter) == at::MemOverlap::Yes)
    refuse(c10::str(" of shape ", parameter.sizes(),
                    " is expanded: some of its elements are one number in memory, which no step can "
                    "write; train what it was expanded from, or its clone()"));
}

}  // namespace

namespace {

// Calls the user's loss, or what stands for it.
template <class Call>
auto calling_loss(const Level& level, const char* what, const Call& call) {
  try {
    return naming<LossError>([&] { return where(level) + ": " + what; }, call);
  } catch (const detail::NoSuchTensor& error) {
    throw LossError(where(level) + ": " + what + " asked for " + error.what() +
                    "; a batch holds the tensors of LevelOptions::data, in their order, counted from 0");
  }
}

// What a problem knows of a parameter that the user has frozen is not asked for.
void forget_frozen(Tensors& derivatives, const Tensors& wrt) {
  for (std::size_t i = 0; i < wrt.size(); ++i)
    if (!wrt[i].requires_grad()) derivatives[i].reset();
}

[[noreturn]] void refuse_sparse(const Level& level, const at::Tensor& parameter) {
  std::string name = c10::str("a parameter of shape ", parameter.sizes());
  for (std::size_t i = 0; i < level.parameters.size(); ++i)
    if (level.parameters[i].is_same(parameter)) name = "parameter '" + level.parameter_names[i] + "'";
  throw UnsupportedError(
      where(level) + ": the gradient of " + name +
      " is sparse, and clipping, optimizers and hypergradients here are for dense ones; make the embedding with "
      "torch::nn::EmbeddingOptions::sparse(false)");
}

}  // namespace

std::string where(const Level& level) {
  return "level '" + level.name + "' at step " + std::to_string(level.counters.steps);
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
    if (!parameter.requires_grad() || !seen.insert(parameter.unsafeGetTensorImpl()).second) continue;
    check_parameter("level '" + name + "': parameter '" + parameter_name + "'", parameter);
    parameter_names.push_back(parameter_name);
    parameters.push_back(parameter);
    metas_.push_back({parameter.sizes().vec(), parameter.scalar_type(), parameter.device()});
  }
  if (parameters.empty())
    throw ConfigError("level '" + name + "': no trainable parameters (" +
                      std::to_string(problem->trained().parameters().size()) +
                      " given, all frozen); pass modules or leaf tensors with requires_grad to trains(…)");
  if (options.precision == Precision::bfloat16)
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (parameters[i].scalar_type() != at::kFloat)
        throw ConfigError("level '" + name + "': LevelOptions::precision = bfloat16 with parameter '" + parameter_names[i] +
                          "' of type " + c10::toString(parameters[i].scalar_type()) +
                          "; it is for parameters in float32, which stay so");
  values = Values(parameters);
  frozen.assign(parameters.size(), 0);
  makes_gradient = !options.constant.empty();

  optimizer = naming<ConfigError>([this] { return "level '" + name + "': the optimizer"; },
                                  [this] { return options.optimizer(parameters); });
  if (!optimizer) throw ConfigError("level '" + name + "': the optimizer factory returned nothing");
  for (auto& group : optimizer->param_groups()) base_learning_rates.push_back(group.options().get_lr());
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
    throw ConfigError("level '" + name + "': parameter '" + parameter_names[i] + "' was " +
                      c10::str(c10::toString(meta.dtype), at::IntArrayRef(meta.sizes), " on ", meta.device) +
                      " when the level was added and is now " +
                      c10::str(c10::toString(parameter.scalar_type()), parameter.sizes(), " on ", parameter.device()) +
                      "; convert or move modules before Engine::add");
  }
}

void Level::set_gradients(bool on) {
  if (gradients_on == on) return;
  for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].set_requires_grad(on && !frozen[i]);
  gradients_on = on;
}

void Level::look_at_frozen() {
  for (std::size_t i = 0; i < parameters.size(); ++i) frozen[i] = parameters[i].requires_grad() ? 0 : 1;
}

std::vector<double> Level::learning_rates() const {
  std::unordered_map<const void*, double> by_parameter;
  for (auto& group : optimizer->param_groups())
    for (const auto& parameter : group.params()) by_parameter[parameter.unsafeGetTensorImpl()] = group.options().get_lr();
  std::vector<double> rates;
  for (const auto& parameter : parameters) rates.push_back(by_parameter.at(parameter.unsafeGetTensorImpl()));
  return rates;
}

void Level::forget_steps() {
  std::size_t wanted = 0;
  for (const std::size_t upper : sweepers) wanted = std::max(wanted, taken[upper]);
  if (!needs.trajectory) wanted = std::min<std::size_t>(wanted, 1);
  while (records.size() > wanted) records.pop_front();
}

Level& Levels::find(const std::string& name) const {
  for (const auto& level : all)
    if (level->name == name) return *level;
  std::string names;
  for (const auto& level : all) names += (names.empty() ? "'" : ", '") + level->name + "'";
  throw ConfigError("no level is called '" + name + "'; there are " + (names.empty() ? "none" : names));
}

void Levels::collect() {
  untrained.clear();
  modules.clear();
  owner_.clear();
  std::unordered_set<const void*> seen;
  Tensors frozen;
  // Each after all below it, turned round at the end.
  const std::function<void(const std::shared_ptr<torch::nn::Module>&)> collect_module = [&](const auto& module) {
    if (!seen.insert(module.get()).second) return;
    for (const auto& child : module->children()) collect_module(child);
    modules.push_back(module);
  };
  for (const auto& level : all)
    for (const auto& parameter : level->parameters) owner_[parameter.unsafeGetTensorImpl()] = level.get();
  const auto add_frozen = [&](const at::Tensor& parameter) {
    const void* id = parameter.unsafeGetTensorImpl();
    if (owner_.find(id) == owner_.end() && seen.insert(id).second) frozen.push_back(parameter);
  };
  for (const auto& level : all) {
    for (const auto& [name, parameter] : level->problem->trained().parameters()) add_frozen(parameter);
    for (const auto& root : level->problem->trained().modules()) {
      collect_module(root);
      for (const auto& buffer : root->buffers())
        if (buffer.defined() && seen.insert(buffer.unsafeGetTensorImpl()).second) untrained.add(buffer, /*buffer=*/true);
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
  for (const auto& other : all) other->set_gradients(level.takes_gradients || on[other->index] != 0);
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
  // train(bool) recurses, so what is above comes first. A user's own train may reach modules that are not below, hence again.
  for (std::size_t pass = 0; pass <= modules.size() && this->modes() != modes; ++pass)
    for (std::size_t i = 0; i < modules.size(); ++i)
      if (modules[i]->is_training() != (modes[i] != 0)) modules[i]->train(modes[i] != 0);
}

Thawed::Thawed(Levels& levels) : levels_(levels) {
  levels.set_all_gradients(false);
  for (const auto& level : levels.all)
    frozen_.push_back(std::exchange(level->frozen, std::vector<char>(level->parameters.size(), 0)));
  levels.set_all_gradients(true);
}

Thawed::~Thawed() {
  levels_.set_all_gradients(false);
  for (std::size_t i = 0; i < frozen_.size(); ++i) levels_[i].frozen = std::move(frozen_[i]);
  levels_.set_all_gradients(true);
}

Autocast::Autocast(const Level& level)
    : on_(level.options.precision == Precision::bfloat16), device_(level.parameters.front().device().type()) {
  if (!on_) return;
  was_on_ = at::autocast::is_autocast_enabled(device_);
  was_ = at::autocast::get_autocast_dtype(device_);
  at::autocast::set_autocast_enabled(device_, true);
  at::autocast::set_autocast_dtype(device_, at::kBFloat16);
}

Autocast::~Autocast() {
  if (!on_) return;
  at::autocast::clear_cache();
  at::autocast::set_autocast_dtype(device_, was_);
  at::autocast::set_autocast_enabled(device_, was_on_);
}

Evaluation evaluate(Level& level, Draw& draw, bool replay) {
  const at::AutoGradMode with_gradients(true);
  seed_generators(draw.seed);
  ChoiceTape tape(draw.choices, replay, level.name, draw.seed);
  ++level.counters.forwards;
  const Autocast autocast(level);
  Evaluation result = calling_loss(level, "the loss", [&] { return level.problem->loss(draw.batch); });
  // Its cache of converted weights would outlive the values it was made from.
  if (at::autocast::is_autocast_enabled(at::kCPU) || at::autocast::is_autocast_enabled(at::kCUDA))
    at::autocast::clear_cache();

  tape.finish();
  const double value = check_loss(level, result.loss);
  if (!replay) draw.loss = value;
  check_metrics(level, result);
  return result;
}

std::optional<Evaluation> known_gradient(Level& level, Draw& draw, bool replay, const Tensors& wrt, Tensors& gradient) {
  if (!level.analytic) return std::nullopt;
  seed_generators(draw.seed);
  ChoiceTape tape(draw.choices, replay, level.name, draw.seed);
  gradient.assign(wrt.size(), {});
  std::optional<Evaluation> result = calling_loss(level, "AnalyticDerivatives::gradient",
                                                  [&] { return level.analytic->gradient(draw.batch, wrt, gradient); });
  if (!result) return result;
  ++level.counters.forwards;
  ++level.counters.backwards;
  if (gradient.size() != wrt.size())
    throw LossError(where(level) + ": AnalyticDerivatives::gradient made " + std::to_string(gradient.size()) + " tensors for " +
                    std::to_string(wrt.size()) + " in wrt; set one each (undefined for zero)");
  tape.finish();
  forget_frozen(gradient, wrt);
  const double value = check_loss(level, result->loss);
  check_metrics(level, *result);
  if (!replay) draw.loss = value;
  return result;
}

Tensors known_product(Level& level, Draw& draw, const Tensors& v, const Tensors& wrt) {
  seed_generators(draw.seed);
  ChoiceTape tape(draw.choices, /*replay=*/true, level.name, draw.seed);  // a product may need fewer choices than the loss
  const at::NoGradGuard no_grad;
  Tensors product = calling_loss(level, "AnalyticDerivatives::product",
                                 [&] { return level.analytic->product(draw.batch, v, wrt); });
  if (product.size() != wrt.size())
    throw LossError("level '" + level.name + "': AnalyticDerivatives::product returned " + std::to_string(product.size()) +
                    " tensors for " + std::to_string(wrt.size()) + " in wrt; return one each (undefined for zero)");
  forget_frozen(product, wrt);
  return product;
}

Tensors product_by_duals(Level& level, Draw& draw, const Tensors& v, const Tensors& wrt, double* value) {
  const DualNumbers duals(level.parameters, v);
  const auto refuse = [&](const std::string& why) {
    throw UnsupportedError(
        "level '" + level.name + "': the reverse-over-forward oracle " + why +
        "; use mlo::exact_oracle() (mlo::one_step()) or mlo::finite_difference_oracle() (mlo::darts()) for this level");
  };
  std::optional<Evaluation> evaluation;
  at::Tensor tangent;
  try {
    evaluation = evaluate(level, draw, /*replay=*/true);
    tangent = duals.tangent(evaluation->loss);
    if (value) *value = value_of(evaluation->loss);
  } catch (const Error& error) {
    // A loss that has been evaluated without dual numbers, and now fails in LibTorch.
    try {
      std::rethrow_if_nested(error);
    } catch (const std::exception& inner) {
      if (is_libtorch(inner)) refuse("needs forward derivatives that LibTorch does not have (" + words_of(inner) + ")");
    } catch (...) {
    }
    throw;
  }
  if (!tangent.defined() || !tangent.requires_grad()) return Tensors(wrt.size());
  if (const std::string node = not_differentiable_after_forward(evaluation->loss, tangent); !node.empty())
    refuse(
        "would be wrong, because what is differentiated enters the loss through an operation whose forward derivative LibTorch "
        "does not "
        "differentiate right (" +
        node + ")");
  return differentiate(level, tangent, wrt, /*create_graph=*/false);
}

Tensors differentiate(Level& level, const at::Tensor& loss, const Tensors& wrt, bool create_graph) {
  ++level.counters.backwards;
  Tensors result = naming<LossError>([&level] { return where(level) + ": the gradient of the loss"; },
                                     [&] { return gradients({loss}, wrt, {}, create_graph, create_graph); });
  for (std::size_t i = 0; i < wrt.size(); ++i)
    if (result[i].defined() && result[i].layout() != at::kStrided) refuse_sparse(level, wrt[i]);
  return result;
}

SecondOrderGuard::SecondOrderGuard(bool on)
    : on_(on),
      flash_(at::globalContext().userEnabledFlashSDP()),
      efficient_(at::globalContext().userEnabledMemEfficientSDP()),
      cudnn_(at::globalContext().userEnabledCuDNNSDP()) {
  if (!on_) return;
  at::globalContext().setSDPUseFlash(false);
  at::globalContext().setSDPUseMemEfficient(false);
  at::globalContext().setSDPUseCuDNN(false);
}

SecondOrderGuard::~SecondOrderGuard() {
  if (!on_) return;
  at::globalContext().setSDPUseFlash(flash_);
  at::globalContext().setSDPUseMemEfficient(efficient_);
  at::globalContext().setSDPUseCuDNN(cudnn_);
}

namespace {

using torch::autograd::Node;

// The first node of the graphs behind `open` that is looked for; null if there is none.
template <class IsIt>
Node* find_node(std::vector<Node*> open, IsIt&& is_it) {
  std::unordered_set<const Node*> seen(open.begin(), open.end());
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    if (!node) continue;
    if (is_it(*node)) return node;
    for (const auto& edge : node->next_edges())
      if (seen.insert(edge.function.get()).second) open.push_back(edge.function.get());
  }
  return nullptr;
}

std::string find_name(const Tensors& tensors, const char* part) {
  std::vector<Node*> roots;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined()) roots.push_back(tensor.grad_fn().get());
  const Node* node = find_node(roots, [&](const Node& each) { return each.name().find(part) != std::string::npos; });
  return node ? node->name() : std::string();
}

}  // namespace

std::string fused_attention_between(const at::Tensor& loss, const Tensors& gradients) {
  return find_name(gradients, "NotImplemented").empty() ? std::string() : find_name({loss}, "ScaledDotProduct");
}

std::string wrong_when_differentiated_twice(const at::Tensor& loss, const Tensors& parameters) {
  std::unordered_set<const void*> own;
  for (const at::Tensor& parameter : parameters) own.insert(parameter.unsafeGetTensorImpl());
  const auto is_own = [&](Node& node) {
    const auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(&node);
    return leaf && own.count(leaf->variable.unsafeGetTensorImpl()) != 0;
  };
  // The differentiable form of its backward takes the norms of the forward pass as constants.
  const auto is_wrong = [&](Node& node) {
    return node.name().find("WeightNormInterface") != std::string::npos && find_node({&node}, is_own);
  };
  const Node* node = find_node({loss.grad_fn().get()}, is_wrong);
  return node ? node->name() : std::string();
}

}  // namespace mlo
