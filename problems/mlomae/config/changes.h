#pragma once

#include "mlomae/config/settings.h"

#include <string>
#include <vector>

namespace mlomae {

/// Whether a setting decides what a run trains: not those that say where the images are, who reads
/// them ahead, how often something is written, and how the run is judged afterwards.
bool decides_training(const std::string& key);
/// One of the two ways to say how long a run is, which only together are a number of steps.
bool says_length(const std::string& key);

struct Change {
  std::string key, before, after;
  std::string text() const { return key + ": " + before + " → " + after; }
};
/// Of the settings that decide what is trained, those that differ; the length is left out.
std::vector<Change> changes(const Settings& before, const Settings& after);

}  // namespace mlomae
