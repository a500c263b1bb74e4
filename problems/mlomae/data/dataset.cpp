#include "mlomae/data/dataset.h"

#include <mlo/data/image_source.h>
#include <mlo/error.h>
#include <torch/torch.h>

#include <algorithm>
#include <numeric>

namespace mlomae {
namespace {

namespace fs = std::filesystem;
using Images = std::shared_ptr<const mlo::ImageSet>;

class Subset final : public mlo::ImageSet {
 public:
  Subset(Images images, std::vector<int64_t> rows) : images_(std::move(images)), rows_(std::move(rows)) {}
  int64_t size() const override { return static_cast<int64_t>(rows_.size()); }
  int64_t channels() const override { return images_->channels(); }
  const std::vector<std::string>& classes() const override { return images_->classes(); }
  int64_t label(int64_t i) const override { return images_->label(row(i)); }
  at::Tensor image(int64_t i) const override { return images_->image(row(i)); }

 private:
  int64_t row(int64_t i) const { return rows_.at(static_cast<std::size_t>(i)); }
  Images images_;
  std::vector<int64_t> rows_;
};

// The first of the names that is there, plain or packed; empty: none.
fs::path first_of(const fs::path& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names)
    for (const char* suffix : {"", ".gz"})
      if (fs::exists(folder / (name + suffix))) return folder / (name + suffix);
  return {};
}

std::string format_of(const fs::path& folder) {
  if (fs::exists(folder / "data_batch_1.bin")) return "cifar10";
  if (fs::exists(folder / "train.bin")) return "cifar100";
  if (!first_of(folder, {"train-images-idx3-ubyte", "train-images.idx3-ubyte"}).empty()) return "idx";
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_directory()) return "folder";
  throw mlo::ConfigError(folder.string() +
                         ": no images known here; expected data_batch_1.bin … (CIFAR-10), train.bin (CIFAR-100), "
                         "train-images-idx3-ubyte[.gz] (IDX), or one folder a class with JPEG or PNG files");
}

Images idx(const fs::path& folder, const std::string& part) {
  const fs::path images = first_of(folder, {part + "-images-idx3-ubyte", part + "-images.idx3-ubyte"});
  const fs::path labels = first_of(folder, {part + "-labels-idx1-ubyte", part + "-labels.idx1-ubyte"});
  if (images.empty() || labels.empty())
    throw mlo::ConfigError(folder.string() + ": expected the files " + part + "-images-idx3-ubyte and " + part +
                           "-labels-idx1-ubyte, plain or .gz");
  return mlo::idx_images(images, labels);
}

void open(const Settings::Data& s, const fs::path& folder, const OnBadImage& on_bad_image, Dataset& data) {
  if (data.format == "cifar10") {
    data.train = mlo::cifar10_images(folder, true);
    data.test = mlo::cifar10_images(folder, false);
  } else if (data.format == "cifar100") {
    data.train = mlo::cifar100_images(folder, true);
    data.test = mlo::cifar100_images(folder, false);
  } else if (data.format == "idx") {
    data.train = idx(folder, "train");
    data.test = idx(folder, fs::exists(first_of(folder, {"t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"})) ? "t10k" : "test");
  } else {
    mlo::ImageFolderOptions options{.channels = s.channels == 0 ? 3 : s.channels};
    if (s.on_bad_image == "skip") options.on_bad_image = on_bad_image;
    if (fs::is_directory(folder / "train")) {
      data.train = mlo::folder_images(folder / "train", options);
      for (const char* name : {"test", "val", "validation"})
        if (!data.test && fs::is_directory(folder / name)) data.test = mlo::folder_images(folder / name, options);
    } else {
      data.train = mlo::folder_images(folder, options);
    }
    if (!data.test && s.test_fraction > 0.0) {
      const mlo::Split parts = mlo::split_by_class(*data.train, s.test_fraction, static_cast<uint64_t>(s.split_seed));
      data.test = subset(data.train, parts.held_out);
      data.train = subset(data.train, parts.train);
    }
  }
}

// Of up to 5,000 training images, spread evenly.
void measure(Dataset& data) {
  const int64_t count = std::min<int64_t>(data.train->size(), 5000), step = data.train->size() / count;
  mlo::Augmentation plain;
  plain.size = data.image_size;
  at::Tensor sum = at::zeros({data.train->channels()}, at::kDouble), squares = sum.clone();
  int64_t values = 0;
  for (int64_t begin = 0; begin < count; begin += 100) {
    std::vector<int64_t> rows;
    for (int64_t i = begin; i < std::min(begin + 100, count); ++i) rows.push_back(i * step);
    const at::Tensor images = mlo::image_batch(*data.train, rows, 0, static_cast<int64_t>(rows.size()), plain)[0].to(at::kDouble);
    sum += images.sum({0, 2, 3});
    squares += images.square().sum({0, 2, 3});
    values += images.numel() / images.size(1);
  }
  const at::Tensor mean = sum / values, deviation = (squares / values - mean.square()).clamp_min(0).sqrt();
  for (int64_t c = 0; c < mean.size(0); ++c) {
    data.mean.push_back(mean[c].item<double>());
    data.deviation.push_back(std::max(deviation[c].item<double>(), 1e-3));  // all images of one colour
  }
}

std::vector<int64_t> joined(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  std::vector<int64_t> all;
  std::merge(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(all));
  return all;
}

void check_count(const std::string& level, std::size_t images, int64_t batch, const std::string& cure) {
  if (static_cast<int64_t>(images) < batch)
    throw mlo::ConfigError(level + ".batch = " + std::to_string(batch) + ", but there are only " + std::to_string(images) +
                           " images for that level; choose a smaller batch" + cure);
}

}  // namespace

std::string folder_name(const fs::path& folder) {
  const fs::path whole = fs::absolute(folder).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

std::shared_ptr<const mlo::ImageSet> subset(std::shared_ptr<const mlo::ImageSet> images, std::vector<int64_t> rows) {
  return std::make_shared<Subset>(std::move(images), std::move(rows));
}

mlo::Augmentation Dataset::plain() const {
  mlo::Augmentation a;
  a.size = image_size;
  a.mean = mean;
  a.deviation = deviation;
  return a;
}

mlo::Augmentation Dataset::augmented(const Settings& settings) const {
  mlo::Augmentation a = plain();
  a.flip = settings.augmentation.flip;
  if (settings.augmentation.crop == "pad") a.crop_padding = settings.augmentation.padding;
  if (settings.augmentation.crop == "resized") {
    a.resized_crop.emplace();
    a.resized_crop->smallest_area = settings.augmentation.smallest_area;
  }
  return a;
}

Dataset open_dataset(const Settings& settings, const OnBadImage& on_bad_image) {
  const Settings::Data& s = settings.data;
  if (s.path.empty()) throw mlo::ConfigError("data.path is empty: give the folder with the images (--data FOLDER)");
  fs::path folder = s.path;
  if (!fs::is_directory(folder)) throw mlo::ConfigError(s.path + ": no such folder; --data expects the folder with the images");
  for (const char* inside : {"cifar-10-batches-bin", "cifar-100-binary"})
    if (fs::is_directory(folder / inside)) folder /= inside;

  Dataset data;
  data.name = folder_name(folder);
  data.format = s.format == "auto" ? format_of(folder) : s.format;
  open(s, folder, on_bad_image, data);
  if (s.channels != 0 && s.channels != data.train->channels())
    throw mlo::ConfigError("data.channels = " + std::to_string(s.channels) + ", but the images have " +
                           std::to_string(data.train->channels()) + "; leave it 0");
  if (data.test && data.test->classes() != data.train->classes())
    throw mlo::ConfigError(s.path + ": " + std::to_string(data.train->classes().size()) + " classes for training and " +
                           std::to_string(data.test->classes().size()) +
                           " for testing, or other names; both parts must have the same folders");
  if (s.limit > 0 && s.limit < data.train->size()) {
    const double left_out = 1.0 - static_cast<double>(s.limit) / static_cast<double>(data.train->size());
    data.train = subset(data.train, mlo::split_by_class(*data.train, left_out, static_cast<uint64_t>(s.split_seed)).train);
  }

  if (s.held_out > 0.0) {
    mlo::Split parts = mlo::split_by_class(*data.train, s.held_out, static_cast<uint64_t>(s.split_seed) + 1);
    data.head = std::move(parts.train);
    data.held_out = std::move(parts.held_out);
  } else {
    data.head.resize(static_cast<std::size_t>(data.train->size()));
    std::iota(data.head.begin(), data.head.end(), int64_t{0});
  }
  data.pretrain = s.pretrain_on == "all" ? joined(data.head, data.held_out) : data.head;

  check_count("pretrain", data.pretrain.size(), settings.pretrain.batch, "");
  if (settings.run.method == "mlo-mae") check_count("head", data.head.size(), settings.head.batch, "");
  if (settings.run.method == "mlo-mae" || settings.run.method == "blo-mae")
    check_count("masker", data.held_out.size(), settings.masker.batch, " or a larger data.held_out");

  data.image_size = settings.model.image_size;
  if (data.image_size == 0) data.image_size = data.format == "folder" ? 224 : data.train->image(0).size(1);
  if (s.normalize == "imagenet") {
    if (data.train->channels() != 3)
      throw mlo::ConfigError("data.normalize = imagenet is for colour images, and these are grey; use data");
    data.mean = {0.485, 0.456, 0.406};
    data.deviation = {0.229, 0.224, 0.225};
  } else {
    measure(data);
  }
  data.augmented(settings).validate(data.train->channels());
  model_options(settings, data).validate();
  return data;
}

ModelOptions model_options(const Settings& settings, const Dataset& dataset) {
  const Settings::Model& s = settings.model;
  ModelOptions o;
  o.image_size = dataset.image_size;
  o.channels = dataset.train->channels();
  o.patch = s.patch;
  o.dropout = s.dropout;
  o.learned_positions = s.learned_positions;
  o.normalize_targets = s.normalize_targets;
  o.checkpoint_activations = s.checkpoint_activations;
  o = model_size(s.size, o);
  const auto unless_zero = [](int64_t given, int64_t& field) {
    if (given != 0) field = given;
  };
  unless_zero(s.dim, o.dim);
  unless_zero(s.depth, o.depth);
  unless_zero(s.heads, o.heads);
  unless_zero(s.decoder_dim, o.decoder_dim);
  unless_zero(s.decoder_depth, o.decoder_depth);
  unless_zero(s.decoder_heads, o.decoder_heads);
  return o;
}

}  // namespace mlomae
