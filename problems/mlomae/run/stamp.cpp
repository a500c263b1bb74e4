#include "mlomae/run/stamp.h"

#include "mlomae/config/changes.h"
#include "mlomae/config/json.h"
#include "mlomae/config/json_text.h"

#include "mlomae/message.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace mlomae {
namespace {

class Stamped final : public mlo::BatchSource {
 public:
  Stamped(std::unique_ptr<mlo::BatchSource> source, const Stamp& stamp)
      : source_(std::move(source)),
        settings_(json_text(to_json(stamp.settings))),
        images_(stamp.images) {}
  mlo::Batch next() override { return source_->next(); }
  int64_t epoch() const override { return source_->epoch(); }
  void seed(uint64_t key) override { source_->seed(key); }
  std::string fingerprint() const override { return source_->fingerprint(); }
  void save(mlo::State& state, const std::string& prefix) const override {
    source_->save(state, prefix);
    state.set(prefix + "settings", settings_);
    state.set(prefix + "images", images_);
  }
  void load(const mlo::State& state, const std::string& prefix) override {
    source_->load(state, prefix);
  }

 private:
  const std::unique_ptr<mlo::BatchSource> source_;
  const std::string settings_, images_;
};

constexpr const char* kPrefix = "level/pretrain/data/";

}  // namespace

std::unique_ptr<mlo::BatchSource> stamped(std::unique_ptr<mlo::BatchSource> source,
                                          const Stamp& stamp) {
  return std::make_unique<Stamped>(std::move(source), stamp);
}

std::optional<Stamp> stamp_of(const mlo::State& state) {
  const std::string prefix = kPrefix;
  if (!state.has(prefix + "settings")) return {};
  Stamp stamp;
  apply_json(stamp.settings,
             parse_json(state.text(prefix + "settings"), "the checkpoint's settings"),
             "the checkpoint's settings");
  stamp.images = state.text(prefix + "images");
  return stamp;
}

std::vector<std::string> compare(const Stamp& checkpoint, const Stamp& now,
                                 const std::vector<std::string>& allowed) {
  std::vector<std::string> accepted, refused, keys;
  const auto judge = [&](const std::string& key, const std::string& text) {
    const bool may = std::find(allowed.begin(), allowed.end(), key) != allowed.end();
    (may ? accepted : refused).push_back(text);
    if (!may) keys.push_back(key);
  };
  for (const Change& change : changes(checkpoint.settings, now.settings))
    judge(change.key, change.text());
  if (checkpoint.images != now.images)
    judge("data.path",
          message("the images in {} are not those that it was trained on", now.settings.data.path));
  if (refused.empty()) return accepted;
  std::string lines, options;
  for (const std::string& line : refused) lines += "\n  " + line;
  for (const std::string& key : keys) options += " --allow-changed " + key;
  refuse(
      "the checkpoint was made with other settings (then → now):{}\ntake them back to go on with "
      "the same run, or go on with what is changed:{}",
      lines, options);
}

}  // namespace mlomae
