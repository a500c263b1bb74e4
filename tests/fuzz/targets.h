#pragma once

#include <filesystem>
#include <string>
#include <vector>

/// A reader of bytes that may come from anybody, with whole files to begin with.
struct FuzzTarget {
  std::string name;
  std::vector<std::string> (*seeds)();
  void (*read)(const std::filesystem::path& file);  ///< may throw mlo::Error and nothing else
};

const std::vector<FuzzTarget>& fuzz_targets();

/// Gives the bytes to the reader, as `file`. True if it has taken them, false if it has refused
/// them with an mlo::Error; what else is thrown passes.
bool taken(const FuzzTarget& target, const std::string& bytes, const std::filesystem::path& file);
