#pragma once

#include "mlomae/config/settings.h"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <string>

namespace mlomae {

/// {"section": {"name": value, …}, …}; `explained`: each value as {"value": …, "about": …,
/// "choices": […]}.
nlohmann::ordered_json to_json(const Settings& settings, bool explained = false);

/// Overwrites the settings that the JSON names, plain or explained. Throws mlo::ConfigError for a
/// key that does not exist, with the nearest that does, for more in an explained value, and for a
/// value of another type or outside the choices; `origin` (a file) begins the message.
void apply_json(Settings& settings, const nlohmann::ordered_json& json, const std::string& origin);
void apply_file(Settings& settings, const std::filesystem::path& file);
/// "section.name=value", the value as JSON or as bare text; `origin` begins the message.
void apply_assignment(Settings& settings, const std::string& assignment,
                      const std::string& origin = "--set ");

/// Throws mlo::ConfigError, with the nearest that there is, for a key that no setting has; `origin`
/// begins the message.
void check_key(const std::string& key, const std::string& origin);

}  // namespace mlomae
