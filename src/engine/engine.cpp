#include "precompiled.h"

#include "mlo/engine.h"
#include "mlo/io/checkpoint.h"

#include "engine/body.h"
#include "hypergradient/sweep.h"
#include "mlo/error.h"
#include "mlo/hypergradient/presets.h"
#include "mlo/tensors.h"
#include "text.h"

#include <cmath>
#include <limits>
#include <unordered_map>

namespace mlo {
namespace {

bool is_folder(const std::filesystem::path& path) {
  std::error_code unknown;
  return std::filesystem::is_directory(path, unknown);
}

// The public calls, around which nothing of LibTorch's own comes out. What belongs to a level has
// been named further in.
template <class Call>
decltype(auto) guarded(const char* name, const Call& call) {
  return naming<Error>([name] { return message("Engine::{}", name); }, call);
}

}  // namespace

void LevelOptions::validate(const std::string& level) const {
  require(optimizer != nullptr,
          "level {}: LevelOptions::optimizer is missing; give mlo::sgd(…), mlo::adam(…), "
          "mlo::adamw(…) or mlo::use(optimizer)",
          quoted(level));
  require(unroll >= 1, "level {}: LevelOptions::unroll = {}; it must be at least 1", quoted(level),
          unroll);
  require(accumulate >= 1, "level {}: LevelOptions::accumulate = {}; it must be at least 1",
          quoted(level), accumulate);
  require(warmup_steps >= 0, "level {}: LevelOptions::warmup_steps = {}; it must be at least 0",
          quoted(level), warmup_steps);
  require(std::isfinite(clip_norm) && clip_norm >= 0.0,
          "level {}: LevelOptions::clip_norm = {}; it must be positive and finite, or 0 for no "
          "clipping",
          quoted(level), clip_norm);
}

void EngineOptions::validate() const {
  require(steps >= 0, "EngineOptions::steps = {}; it must be at least 0", steps);
  require(validate_every >= 0,
          "EngineOptions::validate_every = {}; it must be at least 0 (0: never)", validate_every);
  require(checkpoint_every >= 0,
          "EngineOptions::checkpoint_every = {}; it must be at least 0 (0: at the end)",
          checkpoint_every);
  require(seconds > 0.0, "EngineOptions::seconds = {}; it must be positive", seconds);
  require(checkpoint_every == 0 || !checkpoint.empty(),
          "EngineOptions::checkpoint_every = {}, and EngineOptions::checkpoint names no file; name "
          "one",
          checkpoint_every);
  const auto folder = checkpoint.parent_path();
  require(folder.empty() || is_folder(folder),
          "EngineOptions::checkpoint = {}, and there is no folder {}; create it first",
          quoted(checkpoint.string()), quoted(folder.string()));
  require(checkpoint_sink != nullptr,
          "EngineOptions::checkpoint_sink is empty; leave it at mlo::atomic_file");
  require(early_stopping.patience >= 1, "EarlyStopping::patience = {}; it must be at least 1",
          early_stopping.patience);
  require(std::isfinite(early_stopping.min_delta) && early_stopping.min_delta >= 0.0,
          "EarlyStopping::min_delta = {}; it must be finite and at least 0",
          early_stopping.min_delta);
  require(early_stopping.metric.empty() || validate_every > 0,
          "EarlyStopping::metric = {}, and EngineOptions::validate_every is 0; early stopping "
          "looks at validations, so say how often to validate",
          quoted(early_stopping.metric));
}

std::atomic<const void*> ExclusiveGuard::active = nullptr;

ExclusiveGuard::ExclusiveGuard(Engine::Body& body) : levels_(body.levels) {
  body.check_usable();
  if (c10::InferenceMode::is_enabled())
    refuse<ConfigError>(
        "the engine was called under c10::InferenceMode, in which nothing has a gradient; leave it "
        "before the engine is called (the scope of the guard), or use at::NoGradGuard for what is "
        "yours");
  const void* nobody = nullptr;
  outermost_ = active.compare_exchange_strong(nobody, &body);
  if (!outermost_ && nobody != &body)
    refuse<Error>(
        "another engine of this process is stepping; LibTorch's random generators and attention "
        "switches are process-wide, so one engine steps at a time: wait for the other, or use a "
        "process for each");
  if (!outermost_) return;
  generators_.emplace();
  levels_.look_at_frozen();
}

ExclusiveGuard::~ExclusiveGuard() {
  if (!outermost_) return;
  levels_.set_all_gradients(true);
  active = nullptr;
}

Engine::Engine(EngineOptions options) : body_(std::make_unique<Body>(*this, std::move(options))) {
  body_->options.validate();
}
Engine::~Engine() = default;

void Engine::add_level(std::string name, std::shared_ptr<Problem> problem, LevelOptions options) {
  Body& body = *body_;
  // Qualified: of a text that is no constant std::quoted would be meant.
  const std::string who = message("level {}", mlo::quoted(name));
  require(!body.built, "{}: the engine has been built; add every level before the first step", who);
  require(!name.empty() && name.find_first_of("/.") == std::string::npos,
          "a level's name is {}; give a name without '/' and '.'", mlo::quoted(name));
  require(problem != nullptr, "{}: the problem is null; pass one, or a pointer that holds one",
          who);
  options.validate(name);
  for (const auto& level : body.levels.all)
    require(level->name != name, "two levels are called {}; names must differ", mlo::quoted(name));
  if (!options.best_response) options.best_response = one_step();
  auto level = naming<ConfigError>(
      [&] { return who; },
      [&] { return std::make_unique<Level>(name, std::move(problem), std::move(options)); });

  std::unordered_map<const void*, std::string> trained;
  for (const auto& other : body.levels.all)
    for (std::size_t i = 0; i < other->parameters.size(); ++i)
      trained[other->parameters[i].unsafeGetTensorImpl()] =
          message("{} (as {})", quoted(other->name), mlo::quoted(other->parameter_names[i]));
  for (std::size_t i = 0; i < level->parameters.size(); ++i) {
    const auto twin = trained.find(level->parameters[i].unsafeGetTensorImpl());
    if (twin != trained.end())
      refuse<ConfigError>(
          "parameter {} is trained by level {} and by level {}; each parameter belongs to one "
          "level",
          mlo::quoted(level->parameter_names[i]), quoted(level->name), twin->second);
  }
  body.levels.all.push_back(std::move(level));
}

void Engine::add(std::shared_ptr<Callback> callback) {
  require(callback != nullptr, "Engine::add: the callback is null; pass a pointer that holds one");
  body_->callbacks.push_back(std::move(callback));
}

void Engine::build() {
  guarded("build", [this] { body_->build(); });
}
RunSummary Engine::run() {
  return guarded("run", [this] { return body_->run(); });
}

void Engine::step() {
  guarded("step", [this] {
    body_->build();
    const ExclusiveGuard exclusive(*body_);
    body_->step();
  });
}

Tensors Engine::hypergradient(const std::string& name) {
  return guarded("hypergradient", [&] {
    body_->build();
    const ExclusiveGuard exclusive(*body_);
    Level& level = body_->levels.find(name);
    body_->check_parameters();
    body_->begin_cycle();
    body_->advance_below(level);
    Tensors total = body_->total_gradient(level, nullptr);
    for (std::size_t i = 0; i < total.size(); ++i)
      if (!total[i].defined()) total[i] = at::zeros_like(level.parameters[i].detach());
    return total;
  });
}

std::map<std::string, double> Engine::validate() {
  return guarded("validate", [this] {
    body_->build();
    return body_->validate();
  });
}

void Engine::request_stop() noexcept { body_->stop_requested = true; }

const Graph& Engine::graph() {
  build();
  return body_->graph;
}

std::vector<std::string> Engine::level_names() const {
  std::vector<std::string> names;
  for (const auto& level : body_->levels.all) names.push_back(level->name);
  return names;
}

const Counters& Engine::counters(const std::string& level) const {
  return body_->levels.find(level).counters;
}
SolveSummary Engine::summary(const std::string& level) const {
  return body_->levels.find(level).options.best_response->summary();
}
const Tensors& Engine::parameters(const std::string& level) const {
  return body_->levels.find(level).parameters;
}

double Engine::loss(const std::string& name) const {
  const at::Tensor& loss = body_->levels.find(name).past.last_loss;
  return loss.defined() ? loss.item<double>() : std::numeric_limits<double>::quiet_NaN();
}

std::vector<std::pair<std::string, double>> Engine::metrics() const {
  std::vector<std::pair<std::string, double>> result;
  for (const auto& level : body_->levels.all)
    for (const auto& [name, value] : level->past.last_metrics)
      result.emplace_back(level->name + "." + name, value.detach().to(at::kDouble).item<double>());
  return result;
}

int64_t Engine::steps_taken() const { return body_->steps; }
const EngineOptions& Engine::options() const { return body_->options; }

State Engine::state() const {
  return guarded("state", [this] {
    body_->check_usable();
    body_->build();
    return body_->state();
  });
}
void Engine::load_state(const State& state, const LoadOptions& options) {
  guarded("load_state", [&] {
    body_->build();
    body_->load_state(state, options);
  });
}
void Engine::save(const std::filesystem::path& file) const {
  guarded("save", [&] {
    const State saved = state();
    body_->check_finite();
    write_checkpoint(file, saved, body_->options.checkpoint_sink);
  });
}
void Engine::load(const std::filesystem::path& file, const LoadOptions& options) {
  guarded("load", [&] { load_state(read_checkpoint(file), options); });
}

void Engine::Body::check_usable() const {
  if (!broken) return;
  std::string why = "of an unknown exception";
  try {
    std::rethrow_exception(broken);
  } catch (const std::exception& error) {
    why = error.what();
  } catch (...) {
  }
  refuse<Error>(
      "this engine cannot go on: it could not be put back as it was ({}); make a new one, and load "
      "a checkpoint",
      why);
}

void Engine::Body::check_finite() const {
  const at::NoGradGuard no_grad;
  for (const auto& level : levels.all)
    for (std::size_t i = 0; i < level->parameters.size(); ++i) {
      if (level->frozen[i] != 0 || all_finite({level->parameters[i].detach()})) continue;
      refuse<NonFiniteError>(
          "{}: parameter {} is not finite: its last steps have diverged, and it is not saved; "
          "lower the learning rate, or clip",
          where(*level), mlo::quoted(level->parameter_names[i]));
    }
}

void Engine::Body::warn(const std::string& what, const std::string& text) {
  if (!warned.insert(what).second) return;
  if (callbacks.empty()) untold.push_back(text);
  tell("on_warning", [&](Callback& callback) { callback.on_warning(text); });
}

RunSummary Engine::Body::run() {
  build();
  const ExclusiveGuard exclusive(*this);
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [start] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const bool timed = std::isfinite(options.seconds);
  tell("on_start", [&](Callback& callback) { callback.on_start(self); });
  if (!callbacks.empty())
    for (const std::string& text : std::exchange(untold, {}))
      tell("on_warning", [&](Callback& callback) { callback.on_warning(text); });

  RunSummary summary;
  while (true) {
    if (stop_requested.exchange(false)) {
      summary.reason = RunSummary::Reason::request;
      break;
    }
    if (steps >= options.steps) break;
    if (out_of_patience()) {
      summary.reason = RunSummary::Reason::early_stopping;
      break;
    }
    if (timed && elapsed() >= options.seconds) {
      summary.reason = RunSummary::Reason::time;
      break;
    }
    step();
    if (!callbacks.empty()) {
      const StepReport report{steps, options.steps, elapsed(), self};
      tell("on_step", [&](Callback& callback) { callback.on_step(report); });
    }
    if (options.validate_every > 0 && steps % options.validate_every == 0) {
      check_finite();  // or the validation would be the first to fail, and could not say why
      ValidationReport report{steps, validate(), false};
      report.best = judge(report.metrics);
      tell("on_validation", [&](Callback& callback) { callback.on_validation(self, report); });
      look_at_reads_again();
    }
    if (options.checkpoint_every > 0 && steps % options.checkpoint_every == 0 &&
        steps < options.steps)
      self.save(options.checkpoint);
  }
  // The loss of the last step was evaluated before it: nothing else has looked at what it made.
  if (options.checkpoint.empty())
    check_finite();
  else
    self.save(options.checkpoint);
  summary.steps = steps;
  summary.seconds = elapsed();
  for (const auto& level : levels.all)
    summary.levels.push_back({level->name, self.loss(level->name), level->counters,
                              level->options.best_response->summary()});
  tell("on_stop", [&](Callback& callback) { callback.on_stop(self, to_string(summary.reason)); });
  return summary;
}

std::map<std::string, double> Engine::Body::validate() {
  const ExclusiveGuard exclusive(*this);
  const at::NoGradGuard no_grad;
  struct ModesGuard {
    explicit ModesGuard(Levels& all) : levels(all), modes(all.modes()) {
      levels.set_modes(std::vector<char>(modes.size(), 0));
    }
    ~ModesGuard() { levels.set_modes(modes); }
    Levels& levels;
    std::vector<char> modes;
  } const evaluating(levels);

  std::map<std::string, double> metrics;
  for (const auto& level : levels.all) {
    seed_generators(stream_key(options.seed, level->stream, steps, /*micro_batch=*/-2));
    const auto numbers = naming<Error>([&] { return message("{}: validate", where(*level)); },
                                       [&] { return level->problem->validate(); });
    for (const auto& [name, value] : numbers) metrics[level->name + "." + name] = value;
  }
  return metrics;
}

bool Engine::Body::judge(const std::map<std::string, double>& metrics) {
  const EarlyStopping& rule = options.early_stopping;
  if (rule.metric.empty()) return false;
  const auto found = metrics.find(rule.metric);
  if (found == metrics.end())
    refuse<ConfigError>(
        "EarlyStopping::metric = {}; it must be one of what the levels' validate() returned: {}",
        quoted(rule.metric), listed(metrics, [](const auto& each) { return each.first; }));
  const double value = found->second;
  require<NonFiniteError>(!std::isnan(value),
                          "validation at step {}: {} is not a number; look at the level's "
                          "validate(), or lower the learning rate",
                          steps, quoted(rule.metric));
  const bool better =
      !has_best || (rule.mode == EarlyStopping::Mode::min ? value < best - rule.min_delta
                                                          : value > best + rule.min_delta);
  if (better) {
    has_best = true;
    best = value;
    validations_without_improvement = 0;
  } else {
    ++validations_without_improvement;
  }
  return better;
}

bool Engine::Body::out_of_patience() const {
  return !options.early_stopping.metric.empty() &&
         validations_without_improvement >= options.early_stopping.patience;
}

}  // namespace mlo
