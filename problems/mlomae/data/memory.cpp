#include "mlomae/data/memory.h"

#include "mlomae/config/methods.h"
#include "mlomae/message.h"

#include <algorithm>
#include <fstream>

#include <unistd.h>

namespace mlomae {
namespace {

// In doubles throughout: what is asked for may be more than an integer holds.
struct Shape {
  explicit Shape(const Settings& s, const Dataset& data) {
    const ModelOptions o = model_options(s, data);
    const auto real = [](int64_t n) { return static_cast<double>(n); };
    side = real(o.image_size), channels = real(o.channels), patch = real(o.patch),
    dim = real(o.dim), depth = real(o.depth);
    decoder_dim = real(o.decoder_dim), decoder_depth = real(o.decoder_depth);
    patches = (side / patch) * (side / patch);
    visible = std::max(1.0, patches * (1.0 - s.masker.ratio));
    classes = static_cast<double>(data.train->classes().size());
  }
  double side, channels, patch, dim, depth, decoder_dim, decoder_depth, patches, visible, classes;
  double pixels() const { return channels * side * side; }
  double masker(const Settings::Masker& s) const {
    const auto hidden = static_cast<double>(s.hidden);
    const double read = s.input == "pixels" ? patch * patch * channels : dim;
    if (s.network == "image") return patches * (read + 1.0) * hidden;
    if (s.network == "convolution") return (9.0 * read + 2.0 * hidden) * hidden;
    if (s.network == "attention") return read * hidden + 2.0 * block(hidden);
    return patches;
  }
  static double block(double d) {
    return 12.0 * d * d + 13.0 * d;
  }  // attention 4 d², MLP 8 d², biases and norms
  double autoencoder() const {
    return depth * block(dim) + decoder_depth * block(decoder_dim) +
           (patches + patch * patch * channels + decoder_dim) * dim +
           (patches + patch * patch * channels) * decoder_dim;
  }
};

std::string gib(double bytes) {
  const double size = bytes / 1073741824.0;
  return bytes < 1e15 ? message("{:.1f} GiB", size) : message("{:.1e} GiB", size);
}

// Weights, gradients and moments.
double copies(const LevelSettings& s) {
  return s.optimizer == "sgd" ? (s.beta1 > 0.0 ? 3.0 : 2.0) : 4.0;
}

}  // namespace

double machine_bytes() {
  double bytes = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) *
                 static_cast<double>(::sysconf(_SC_PAGE_SIZE));
  for (const char* file :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream in(file);
    if (double limit = 0.0; in >> limit && limit > 0.0)
      bytes = std::min(bytes, limit);  // "max": no limit
  }
  return bytes;
}

void check_memory(const Settings& s, const Dataset& data, double available) {
  constexpr double kFloat = 4.0, kBlockObject = 10e3;  // a block's modules, before any number in it
  const Shape shape(s, data);
  const Method& method = method_of(s);
  struct Need {
    double bytes;
    std::string what;
  };
  std::vector<Need> needs = {{kFloat * copies(s.pretrain) * shape.autoencoder() +
                                  kBlockObject * (shape.depth + shape.decoder_depth),
                              "encoder and decoder with their gradients and optimizer; choose "
                              "smaller model.size, model.dim, "
                              "model.depth, model.decoder_dim or model.decoder_depth"}};
  if (method.learns() || method.masks == Masks::as_initialized)
    needs.push_back(
        {kFloat * (method.learns() ? copies(s.masker) : 1.0) * shape.masker(s.masker),
         "the masker; choose a smaller masker.hidden, or larger patches (model.patch)"});

  // A step's images are on the host in any case; what its graph keeps is on the device.
  const bool on_host = s.run.device == "cpu";
  const auto step = [&](const std::string& name, const LevelSettings& level, double kept) {
    const double batch = static_cast<double>(level.batch);
    const double ahead = s.data.workers > 0 ? static_cast<double>(s.data.prefetch) : 0.0;
    needs.push_back({kFloat * batch * shape.pixels() * (1.0 + ahead),
                     message("images of the level {} and batches prepared ahead; choose a smaller "
                             "{}.batch, model.image_size or data.prefetch",
                             name, name)});
    if (on_host)
      needs.push_back({kFloat * (level.precision == "bfloat16" ? 0.5 : 1.0) * batch * kept,
                       message("what a step of the level {0} keeps for its gradient; choose a "
                               "smaller {0}.batch (and more {0}.accumulate), model.image_size, "
                               "model.dim or model.depth",
                               name)});
  };
  step("pretrain", s.pretrain,
       shape.visible * shape.dim * shape.depth +
           shape.patches * shape.decoder_dim * shape.decoder_depth);
  if (method.levels == 3) step("head", s.head, shape.patches * shape.dim);
  if (method.learns()) step("masker", s.masker, shape.patches * shape.dim);

  double all = 0.0;
  for (const Need& need : needs) all += need.bytes;
  if (all <= available) return;
  const Need& most = *std::max_element(
      needs.begin(), needs.end(), [](const Need& a, const Need& b) { return a.bytes < b.bytes; });
  refuse("these settings need at least {} of memory, and there are {}: {} for {}", gib(all),
         gib(available), gib(most.bytes), most.what);
}

}  // namespace mlomae
