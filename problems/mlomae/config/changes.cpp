#include "mlomae/config/changes.h"

#include "mlomae/config/fields.h"
#include "mlomae/config/json_text.h"

#include <nlohmann/json.hpp>

#include <set>

namespace mlomae {

bool decides_training(const std::string& key) {
  static const std::set<std::string> kNot = {
      "run.threads",        "run.log_every",       "run.validate_every", "run.checkpoint_every",
      "run.snapshot_every", "run.snapshot_images", "data.path",          "data.unlabelled",
      "data.maps",          "data.workers",        "data.prefetch"};
  return !kNot.contains(key) && !key.starts_with("evaluation.");
}

bool says_length(const std::string& key) {
  return key == "run.reconstruction_steps" || key == "run.epochs";
}

std::vector<Change> changes(const Settings& before, const Settings& after) {
  Settings a = before, b = after;
  const std::vector<Field> old_fields = fields(a), new_fields = fields(b);
  const auto text = [](const Field& field) {
    return json_text(
        std::visit([](auto* value) { return nlohmann::ordered_json(*value); }, field.value));
  };
  std::vector<Change> found;
  for (std::size_t i = 0; i < old_fields.size(); ++i)
    if (decides_training(old_fields[i].key) && !says_length(old_fields[i].key) &&
        text(old_fields[i]) != text(new_fields[i]))
      found.push_back({old_fields[i].key, text(old_fields[i]), text(new_fields[i])});
  return found;
}

}  // namespace mlomae
