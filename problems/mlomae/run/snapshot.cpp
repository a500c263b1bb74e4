#include "mlomae/run/snapshot.h"

#include "mlomae/message.h"

#include <mlo/io/checkpoint.h>

namespace mlomae {

void write_snapshot(const std::filesystem::path& file, const Snapshot& s) {
  mlo::State state;
  state.set("step", s.step);
  state.set("patch", s.patch);
  state.set("images", s.images);
  state.set("masked", s.masked);
  state.set("reconstruction", s.reconstruction);
  if (s.probability.defined()) state.set("probability", s.probability);
  if (s.map.defined()) state.set("map", s.map);
  state.set("position_rate", s.position_rate);
  mlo::write_checkpoint(file, state);
}

Snapshot read_snapshot(const std::filesystem::path& file) {
  try {
    const mlo::State state = mlo::read_checkpoint(file);
    Snapshot s;
    s.step = state.integer("step");
    s.patch = state.integer("patch");
    s.images = state.tensor("images");
    s.masked = state.tensor("masked");
    s.reconstruction = state.tensor("reconstruction");
    if (state.has("probability")) s.probability = state.tensor("probability");
    if (state.has("map")) s.map = state.tensor("map");
    s.position_rate = state.tensor("position_rate");
    const bool right =
        s.patch >= 1 && s.images.dim() == 4 && s.images.scalar_type() == at::kByte &&
        s.reconstruction.sizes() == s.images.sizes() &&
        s.reconstruction.scalar_type() == at::kByte && s.images.size(2) == s.images.size(3) &&
        s.images.size(2) % s.patch == 0 && s.masked.dim() == 2 &&
        s.masked.size(0) == s.images.size(0) && s.masked.size(1) == s.position_rate.numel() &&
        s.masked.size(1) * s.patch * s.patch == s.images.size(2) * s.images.size(3) &&
        (!s.probability.defined() || s.probability.sizes() == s.masked.sizes()) &&
        (!s.map.defined() || s.map.sizes() == s.masked.sizes());
    require<mlo::Error>(right, "shapes that do not belong together");
    return s;
  } catch (const mlo::Error& error) {
    refuse<mlo::Error>("{}: no snapshot of masks ({}); remove it", file.string(), error.what());
  }
}

}  // namespace mlomae
