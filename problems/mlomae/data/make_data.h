#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace mlomae {

/// "Object on ground": sets of images in each of which an object that has the label lies at a
/// random place on a ground that says nothing of it, with a map of where it lies. What a network
/// should reconstruct is known, and learned masks can be held against it.
struct ObjectOnGround {
  std::filesystem::path objects;      ///< a data set that open_dataset reads, of two parts
  std::string ground = "noise";       ///< one of grounds()
  std::filesystem::path photographs;  ///< images at any depth, for that ground
  std::filesystem::path out;          ///< a folder that is not there, or empty
  int64_t size = 40, object = 20;     ///< sides of image and object, in pixels
  int64_t train = 0, test = 0;        ///< images of each part, each class alike; 0: all
  /// box: the object's whole square is pasted; shape: its pixels of 16 or more (in some channel),
  /// for objects on black
  std::string cut = "box";
  int64_t seed = 0;

  /// Throws mlo::ConfigError naming option, value and what would do; reads nothing but whether
  /// folders are there.
  void validate() const;
};

const std::vector<std::string>& grounds();

/// Writes the set, and make-data.json, which is returned: all that is needed to make it again, and
/// a digest of it. Grey objects become IDX files (maps: PART-maps-idx3-ubyte), objects in colour
/// folders images/ and maps/ of PNG files alike. Each image is drawn from (seed, part, row of the
/// object) alone, so the same call writes the same bytes, and more images are those of fewer and
/// others. The folder appears when it is whole: until then it is called OUT.part, and it is removed
/// when something throws. `versions` goes into the record.
nlohmann::ordered_json make_data(const ObjectOnGround& asked,
                                 const nlohmann::ordered_json& versions,
                                 const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace mlomae
