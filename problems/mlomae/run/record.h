#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>

namespace mlomae {

/// A run's run.json. Throws mlo::Error naming file and key for what is not of its type.
nlohmann::ordered_json read_record(const std::filesystem::path& run);

/// A JSON file of a run that holds an object. Throws mlo::Error naming it and the cure.
nlohmann::ordered_json read_object(const std::filesystem::path& file);

// What a record says of where it came about.

/// {"mlo", "libtorch", "compiler"}
nlohmann::ordered_json versions();
/// As the system calls it, and how this process was called; empty if it does not say.
std::string processor();
std::string command_line();
/// Most memory that this process has had, in MiB.
double peak_mib();

}  // namespace mlomae
