#include "mlomae/config/json.h"

#include "mlomae/config/fields.h"
#include "mlomae/config/json_text.h"
#include "mlomae/config/nearest.h"
#include "mlomae/message.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

std::string nearest_key(const std::string& key, const std::vector<std::string>& known) {
  const std::string name = key.substr(key.find('.') + 1);
  // A right name in the wrong section is nearer than a like key.
  for (const std::string& k : known)
    if (k.substr(k.find('.') + 1) == name) return k;
  return nearest(key, known);
}

void assign(const Field& field, const Json& json, const std::string& origin) {
  const auto require_type = [&](bool right, const char* type) {
    require(right, "{}{} = {}; it must be {} ({})", origin, field.key, abridged(json_text(json)),
            type, field.about);
  };
  if (auto* flag = std::get_if<bool*>(&field.value)) {
    require_type(json.is_boolean(), "true or false");
    **flag = json.get<bool>();
  } else if (auto* integer = std::get_if<int64_t*>(&field.value)) {
    const bool whole =
        (json.is_number_integer() &&
         !(json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))) ||
        (json.is_number_float() && std::floor(json.get<double>()) == json.get<double>() &&
         std::abs(json.get<double>()) < 1e15);
    require_type(whole, "a whole number");
    **integer = json.get<int64_t>();
  } else if (auto* real = std::get_if<double*>(&field.value)) {
    require_type(json.is_number() && std::isfinite(json.get<double>()), "a number");
    **real = json.get<double>();
  } else {
    require_type(json.is_string(), "text");
    field.check_choice(json.get<std::string>(), origin);
    *std::get<std::string*>(field.value) = json.get<std::string>();
  }
}

void assign(const std::vector<Field>& all, const std::string& key, const Json& json,
            const std::string& origin) {
  for (const Field& field : all)
    if (field.key == key) return assign(field, json, origin);
  check_key(key, origin);
}

}  // namespace

void check_key(const std::string& given, const std::string& origin) {
  const std::string key = abridged(given);  // which no key is that is longer
  Settings any;
  std::vector<std::string> known;
  for (const Field& field : fields(any)) {
    if (field.key == key) return;
    known.push_back(field.key);
  }
  // The masker had a second section once, and two of its settings were called otherwise.
  if (key.starts_with("mask.") || key.starts_with("masker.")) {
    std::string name = key.substr(key.find('.') + 1);
    if (name == "selection") name = "selects";
    if (name == "weights") name = "weighs";
    if (const std::string now = "masker." + name;
        std::find(known.begin(), known.end(), now) != known.end())
      refuse("{}{} is {} now", origin, key, now);
  }
  refuse("{}there is no setting '{}'; the nearest is '{}' (all of them: mlomae config)", origin,
         key, nearest_key(key, known));
}

Json to_json(const Settings& settings, bool explained) {
  Settings copy = settings;
  Json json = Json::object();
  for (const Field& field : fields(copy)) {
    const std::size_t dot = field.key.find('.');
    const Json value = std::visit([](auto* pointer) { return Json(*pointer); }, field.value);
    Json& place = json[field.key.substr(0, dot)][field.key.substr(dot + 1)];
    if (!explained) {
      place = value;
      continue;
    }
    place = {{"value", value}, {"about", field.about}};
    if (!field.choices.empty()) place["choices"] = field.choices;
  }
  return json;
}

void apply_json(Settings& settings, const Json& json, const std::string& origin) {
  const std::string prefix = origin.empty() ? "" : origin + ": ";
  require(json.is_object(),
          "{}expected an object of sections, {{\"model\": {{\"patch\": 4}}}}, not {}", prefix,
          abridged(json_text(json)));
  Settings changed = settings;
  const std::vector<Field> all = fields(changed);
  for (const auto& [section, values] : json.items()) {
    require(values.is_object(),
            "{}'{}' is {}: expected an object, as in {{\"model\": {{\"patch\": 4}}}}", prefix,
            abridged(section), abridged(json_text(values)));
    for (const auto& [name, value] : values.items()) {
      const bool explained = value.is_object() && value.contains("value");
      if (explained)
        for (const auto& [part, unused] : value.items())
          if (part != "value" && part != "about" && part != "choices")
            refuse(
                "{}{} holds '{}': expected value, and perhaps about and choices, as `mlomae "
                "config` prints it",
                prefix, abridged(section + "." + name), abridged(part));
      assign(all, section + "." + name, explained ? value["value"] : value, prefix);
    }
  }
  settings = changed;
}

void apply_file(Settings& settings, const std::filesystem::path& file) {
  apply_json(settings, read_json(file, "give a JSON file of settings (mlomae config prints one)"),
             file.string());
}

void apply_assignment(Settings& settings, const std::string& assignment,
                      const std::string& origin) {
  const std::size_t equals = assignment.find('=');
  require(equals != std::string::npos && equals != 0,
          "{}{}: expected section.name=value, for example --set model.patch=2", origin,
          abridged(assignment));
  const std::string key = assignment.substr(0, equals), text = assignment.substr(equals + 1);
  const std::vector<Field> all = fields(settings);
  const auto field =
      std::find_if(all.begin(), all.end(), [&](const Field& f) { return f.key == key; });
  const bool is_text = field != all.end() && std::holds_alternative<std::string*>(field->value);
  Json value = text;
  if (!is_text && Json::accept(text)) value = parse_json(text, origin + abridged(key));
  assign(all, key, value, origin);
}

}  // namespace mlomae
