#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <random>
#include <vector>

namespace mlomae {

/// The random numbers of one image. The engine and its seeding are the standard's, to the bit, and
/// what is made of them is ours: the same numbers on every machine.
class Draws {
 public:
  explicit Draws(uint64_t key) : engine_(key) {}
  /// 0 … count − 1
  int64_t below(int64_t count) {
    return static_cast<int64_t>(engine_() % static_cast<uint64_t>(count));
  }
  double between(double least, double most) {
    return least + (most - least) * static_cast<double>(engine_() >> 11) * 0x1p-53;
  }

 private:
  std::mt19937_64 engine_;
};

/// Draws what lies behind an object: uint8 [channels, size, size].
using Ground = std::function<at::Tensor(Draws&)>;

/// Noise of amplitude spectrum 1/f and random phases, another one in each channel: mean 128,
/// deviation 50, clipped.
Ground noise_ground(int64_t channels, int64_t size);

/// Stripes of one direction, wavelength (3 to 12 pixels) and phase, of another contrast in each
/// channel, and a little noise.
Ground stripes_ground(int64_t channels, int64_t size);

/// Squares of half the objects' side from anywhere in an object, until all is covered: much of
/// objects, and none whole. The objects are uint8 [channels, side, side].
Ground clutter_ground(std::vector<at::Tensor> objects, int64_t size);

/// One of two parts of the images beneath a folder, every fifth being in the other one than
/// `train`; reduced to a shorter side of 4 · size, and so many of them, evenly, as fit 1 GiB.
/// Throws mlo::ConfigError where there are fewer than five.
std::vector<at::Tensor> read_photographs(const std::filesystem::path& folder, bool train,
                                         int64_t channels, int64_t size);

/// Square parts of photographs, uint8 [channels, any height, any width], from `size` pixels to the
/// shorter side, resized.
Ground photograph_ground(std::vector<at::Tensor> photographs, int64_t size);

}  // namespace mlomae
