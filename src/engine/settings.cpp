#include "precompiled.h"

#include "engine/body.h"
#include "mlo/error.h"
#include "text.h"

#include <c10/util/Type.h>
#include <fmt/format.h>

#include <typeinfo>

namespace mlo {
namespace {

using Settings = std::map<std::string, std::string>;

const std::string kPrefix = "settings/";

std::string joined(const std::vector<std::string>& names) {
  return names.empty() ? "none" : message("{}", fmt::join(names, ", "));
}

// Of a schedule the value it gave last: it may be a function of any kind, and is asked only for a
// step that was taken.
std::string text_of(const Schedule& schedule, int64_t steps) {
  if (!schedule) return "none";
  if (steps == 0) return "given";
  return message("a factor of {} at step {}", schedule(steps - 1), steps - 1);
}

std::string text_of(const Data& data) {
  if (data.empty()) return "none";
  if (!data.source()) return "a function";
  const BatchSource& source = *data.source();
  const std::string fingerprint = source.fingerprint();
  return fingerprint.empty() ? c10::demangle(typeid(source).name()) : fingerprint;
}

std::string text_of(const EarlyStopping& rule) {
  if (rule.metric.empty()) return "none";
  return message("{} {}", rule.mode == EarlyStopping::Mode::min ? "least" : "largest", rule.metric);
}

bool begins(const std::string& name, const std::string& with) {
  return name.compare(0, with.size(), with) == 0;
}
bool covers(const std::string& allowed, const std::string& name) {
  return name == allowed || begins(name, allowed + ".");
}

Settings saved_settings(const State& state) {
  Settings all;
  for (auto i = state.values().lower_bound(kPrefix);
       i != state.values().end() && begins(i->first, kPrefix); ++i)
    all[i->first.substr(kPrefix.size())] = state.text(i->first);
  return all;
}

// The value, with an optimizer's options behind its class.
std::string setting_text(const Settings& settings, const std::string& name, bool with_options) {
  const auto found = settings.find(name);
  if (found == settings.end()) return "nothing";
  std::vector<std::string> options;
  if (with_options)
    for (const auto& [other, value] : settings)
      if (begins(other, name + "."))
        options.push_back(message("{} {}", other.substr(name.size() + 1), value));
  return options.empty() ? found->second
                         : message("{} ({})", found->second, fmt::join(options, ", "));
}

struct Difference {
  std::string name, words;
};

std::vector<Difference> differences(const Settings& saved, const Settings& own) {
  Settings all = saved;
  all.insert(own.begin(), own.end());
  std::vector<Difference> found;
  std::string other_class;  // whose options belong to the difference of the class
  for (const auto& [name, unused] : all) {
    if (!other_class.empty() && covers(other_class, name)) continue;
    const auto left = saved.find(name), right = own.find(name);
    if (left != saved.end() && right != own.end() && left->second == right->second) continue;
    const bool optimizer = name.ends_with(".optimizer");
    if (optimizer) other_class = name;
    found.push_back(
        {name, message("{}: saved {}, here {}", name, setting_text(saved, name, optimizer),
                       setting_text(own, name, optimizer))});
  }
  return found;
}

void check_names(const std::vector<std::string>& allowed, const Settings& saved,
                 const Settings& own) {
  Settings all = own;
  all.insert(saved.begin(), saved.end());
  for (const std::string& name : allowed) {
    if (std::any_of(all.begin(), all.end(),
                    [&](const auto& setting) { return covers(name, setting.first); }))
      continue;
    std::vector<std::string> names;
    for (const auto& [known, value] : all) names.push_back(known);
    refuse<ConfigError>(
        "LoadOptions::allow_changed names {}, which is no setting of this run; there are {}",
        quoted(name), listed(names));
  }
}

}  // namespace

Settings Engine::Body::settings(const State* saved) const {
  Settings all;
  all["engine.seed"] = message("{}", options.seed);
  all["engine.early_stopping"] = text_of(options.early_stopping);
  for (const auto& level : levels.all) {
    const LevelOptions& given = level->options;
    const int64_t taken =
        saved ? saved->integer("level/" + level->name + "/steps") : level->counters.steps;
    const std::string prefix = level->name + ".";
    all[prefix + "below"] = joined(given.below);
    all[prefix + "accumulate"] = message("{}", given.accumulate);
    all[prefix + "clip_norm"] = message("{}", given.clip_norm);
    all[prefix + "constant"] = joined(given.constant);
    all[prefix + "data"] = text_of(given.data);
    all[prefix + "method"] = given.best_response->name();
    all[prefix + "precision"] = given.precision == Precision::float32 ? "float32" : "bfloat16";
    all[prefix + "reads"] = given.reads ? joined(*given.reads) : "found";
    all[prefix + "schedule"] = text_of(given.schedule, taken);
    all[prefix + "top"] = given.top ? "yes" : "no";
    all[prefix + "unroll"] = message("{}", given.unroll);
    all[prefix + "warmup_steps"] = message("{}", given.warmup_steps);
    for (const auto& [name, value] : level->optimizer_settings)
      all[prefix + "optimizer" + name] = value;
  }
  return all;
}

std::set<std::string> Engine::Body::changes(const State& state, const LoadOptions& load) const {
  const Settings saved = saved_settings(state), own = settings(&state);
  check_names(load.allow_changed, saved, own);
  if (state.integer("engine/version") == 1) return {};
  std::set<std::string> changed;
  std::vector<std::string> words, names;
  for (const Difference& difference : differences(saved, own)) {
    if (std::any_of(load.allow_changed.begin(), load.allow_changed.end(),
                    [&](const std::string& allowed) { return covers(allowed, difference.name); })) {
      changed.insert(difference.name);
      continue;
    }
    words.push_back(difference.words);
    names.push_back(message("\"{}\"", difference.name));
  }
  if (!words.empty())
    refuse<CheckpointError>(
        "the checkpoint is of a run with other settings: {}. Give this engine the saved ones; or "
        "let its own count, by name: engine.load(file, {{.allow_changed = {{{}}}}})",
        fmt::join(words, "; "), fmt::join(names, ", "));
  return changed;
}

}  // namespace mlo
