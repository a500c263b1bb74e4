#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#pragma GCC visibility push(default)
namespace mlo {

/// A TensorBoard event file ("events.out.tfevents.…"), a new one in the folder for each writer.
/// Whole records are flushed as they are written.
class EventWriter {
 public:
  /// What earlier files of the folder say of steps from `first_step` on counts no more: a resumed
  /// run writes them again. Throws mlo::Error naming folder or file, here and below, when it cannot
  /// be written.
  explicit EventWriter(const std::filesystem::path& folder, int64_t first_step = 0);

  void scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values);
  /// `png`: the bytes of a PNG file.
  void image(int64_t step, const std::string& tag, const std::vector<uint8_t>& png, int64_t width,
             int64_t height);

 private:
  void write(const std::string& event);

  std::filesystem::path file_;
  std::ofstream out_;
};

}  // namespace mlo
#pragma GCC visibility pop
