#include "mlomae/data/dataset.h"

#include "mlomae/config/methods.h"
#include "mlomae/data/folder.h"
#include "mlomae/data/memory.h"
#include "mlomae/message.h"

#include <ATen/ATen.h>
#include <mlo/data/image_file.h>
#include <mlo/data/image_source.h>
#include <mlo/error.h>
#include <torch/types.h>

#include <algorithm>
#include <map>
#include <numeric>

namespace mlomae {
namespace {

namespace fs = std::filesystem;
using Images = std::shared_ptr<const mlo::ImageSet>;

class Subset final : public mlo::ImageSet {
 public:
  Subset(Images images, std::vector<int64_t> rows)
      : images_(std::move(images)), rows_(std::move(rows)) {}
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

// A set under other labels: those of the same names among `classes`.
class Relabelled final : public mlo::ImageSet {
 public:
  Relabelled(Images images, std::vector<std::string> classes, std::vector<int64_t> labels)
      : images_(std::move(images)), classes_(std::move(classes)), labels_(std::move(labels)) {}
  int64_t size() const override { return images_->size(); }
  int64_t channels() const override { return images_->channels(); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int64_t label(int64_t i) const override {
    return labels_.at(static_cast<std::size_t>(images_->label(i)));
  }
  at::Tensor image(int64_t i) const override { return images_->image(i); }

 private:
  Images images_;
  std::vector<std::string> classes_;
  std::vector<int64_t> labels_;  // ours, by theirs
};

bool is_there(const fs::path& file) {
  std::error_code unknown;
  return fs::exists(file, unknown);
}

bool is_folder(const fs::path& path) {
  std::error_code unknown;
  return fs::is_directory(path, unknown);
}

// The first of the names that is there, plain or packed; empty: none.
fs::path first_of(const fs::path& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names)
    for (const char* suffix : {"", ".gz"})
      if (is_there(folder / (name + suffix))) return folder / (name + suffix);
  return {};
}

fs::path idx_file(const fs::path& folder, const std::string& part, const std::string& kind) {
  return first_of(folder, {part + "-" + kind + "-ubyte",
                           part + "-" + kind.substr(0, 6) + "." + kind.substr(7) + "-ubyte"});
}

std::string format_of(const fs::path& folder) {
  if (is_there(folder / "data_batch_1.bin")) return "cifar10";
  if (is_there(folder / "train.bin")) return "cifar100";
  return idx_file(folder, "train", "images-idx3").empty() ? "folder" : "idx";
}

Images idx(const fs::path& folder, const std::string& part) {
  const fs::path images = idx_file(folder, part, "images-idx3"),
                 labels = idx_file(folder, part, "labels-idx1");
  if (images.empty() || labels.empty())
    throw mlo::ConfigError(folder.string() + ": expected the files " + part +
                           "-images-idx3-ubyte and " + part + "-labels-idx1-ubyte, plain or .gz");
  return mlo::idx_images(images, labels);
}

// What the formats have in common from here on: parts, and of folders the sizes.
struct Opened {
  std::vector<FolderImages> folders;  // of which the images must be of one size, or be resized
};

FolderOptions folder_options(const Settings& settings, int64_t channels) {
  return {.channels = channels,
          .labels_needed = method_of(settings).learns(),
          .skip_bad = settings.data.on_bad_image == "skip"};
}

Opened open(const Settings& settings, const fs::path& folder, Dataset& data) {
  const Settings::Data& s = settings.data;
  Opened opened;
  if (data.format == "cifar10") {
    data.train = mlo::cifar10_images(folder, true);
    if (is_there(folder / "test_batch.bin")) data.test = mlo::cifar10_images(folder, false);
  } else if (data.format == "cifar100") {
    data.train = mlo::cifar100_images(folder, true);
    if (is_there(folder / "test.bin")) data.test = mlo::cifar100_images(folder, false);
  } else if (data.format == "idx") {
    data.train = idx(folder, "train");
    for (const char* part : {"t10k", "test"})
      if (!data.test && !idx_file(folder, part, "images-idx3").empty())
        data.test = idx(folder, part);
  } else {
    FolderParts parts = read_folder(
        folder, folder_options(settings, s.channels == 0 ? 3 : s.channels), data.notices);
    Digest digest;
    digest.add(parts.train.digest.value());
    data.train = parts.train.images;
    opened.folders.push_back(std::move(parts.train));
    if (parts.test) {
      digest.add(parts.test->digest.value());
      data.test = parts.test->images;
      opened.folders.push_back(std::move(*parts.test));
    }
    data.files = digest.value();
  }
  if (s.channels != 0 && s.channels != data.train->channels())
    throw mlo::ConfigError("data.channels = " + std::to_string(s.channels) +
                           ", but the images have " + std::to_string(data.train->channels()) +
                           "; leave it 0");
  if (!s.unlabelled.empty()) {
    if (method_of(settings).levels == 2)
      throw mlo::ConfigError("data.unlabelled = " + s.unlabelled +
                             ": run.method = blo-mae trains its first level on labels too; leave "
                             "it empty, or take mlo-mae");
    if (!is_folder(s.unlabelled))
      throw mlo::ConfigError("data.unlabelled = " + s.unlabelled + ": no such folder");
    opened.folders.push_back(read_unlabelled(
        s.unlabelled, folder_options(settings, data.train->channels()), data.notices));
    data.unlabelled = opened.folders.back().images;
    Digest digest;
    digest.add(data.files);
    digest.add(opened.folders.back().digest.value());
    data.files = digest.value();
  }
  return opened;
}

// Test labels are the training part's, by name. A class may have no test image; one that is not
// trained on is a mistake.
void match_classes(const std::string& where, Dataset& data) {
  if (!data.test || data.test->classes() == data.train->classes()) return;
  const std::vector<std::string>&train = data.train->classes(), &test = data.test->classes();
  std::vector<std::string> only_test, only_train;
  std::vector<int64_t> labels;
  for (const std::string& name : test) {
    const auto place = std::find(train.begin(), train.end(), name);
    if (place == train.end()) only_test.push_back(name);
    labels.push_back(place - train.begin());
  }
  for (const std::string& name : train)
    if (std::find(test.begin(), test.end(), name) == test.end()) only_train.push_back(name);
  if (!only_test.empty())
    throw mlo::ConfigError(
        where + ": there are test images of the class" + (only_test.size() == 1 ? " " : "es ") +
        some_names(only_test) + ", and none to train on" +
        (only_train.empty() ? ""
                            : " (the training images alone have " + some_names(only_train) + ")") +
        "; both parts must call their classes alike");
  data.notices.push_back(where + ": there is no test image of the class" +
                         (only_train.size() == 1 ? " " : "es ") + some_names(only_train));
  data.test = std::make_shared<Relabelled>(data.test, train, std::move(labels));
}

// Classes that have an image in `images` and none among the rows.
std::vector<std::string> missing(const mlo::ImageSet& images, const std::vector<int64_t>& rows) {
  std::vector<bool> there(images.classes().size()), here(images.classes().size());
  for (int64_t i = 0; i < images.size(); ++i)
    there[static_cast<std::size_t>(images.label(i))] = true;
  for (const int64_t row : rows) here[static_cast<std::size_t>(images.label(row))] = true;
  std::vector<std::string> names;
  for (std::size_t c = 0; c < here.size(); ++c)
    if (there[c] && !here[c]) names.push_back(images.classes()[c]);
  return names;
}

mlo::Split split(Dataset& data, double part, const std::string& key, uint64_t seed,
                 const std::string& what) {
  try {
    mlo::Split parts = mlo::split_by_class(*data.train, part, seed);
    if (const auto names = missing(*data.train, parts.held_out); !names.empty())
      data.notices.push_back("no " + what + " image of " + some_names(names) +
                             ": a class with a single image is only trained on (" + key + ")");
    return parts;
  } catch (const mlo::ConfigError&) {
    throw mlo::ConfigError(key + message(" = {}: ", part) + std::to_string(data.train->size()) +
                           " images, none of whose classes has two, cannot be divided; add images, "
                           "or set it to 0 (data.held_out: "
                           "for the methods mae, u-mae and fixed)");
  }
}

void keep_test(const Settings::Data& s, Dataset& data) {
  if (data.test && s.test_fraction != Settings::Data().test_fraction)
    data.notices.push_back(message("data.test_fraction = {}", s.test_fraction) +
                           " is not used: the data set has a test part of its own");
  if (data.test || s.test_fraction == 0.0 || !data.labelled()) return;
  mlo::Split parts = split(data, s.test_fraction, "data.test_fraction",
                           static_cast<uint64_t>(s.split_seed), "test");
  data.notices.push_back("there is no test part; " + std::to_string(parts.held_out.size()) +
                         " of " + std::to_string(data.train->size()) +
                         " images are kept for it (data.test_fraction)");
  data.test = subset(data.train, std::move(parts.held_out));
  data.train = subset(data.train, std::move(parts.train));
}

void limit(const Settings::Data& s, Dataset& data) {
  if (s.limit == 0 || s.limit >= data.train->size()) return;
  const auto classes = static_cast<int64_t>(data.train->classes().size());
  if (s.limit < classes)
    throw mlo::ConfigError("data.limit = " + std::to_string(s.limit) +
                           " is less than an image of each of the " + std::to_string(classes) +
                           " classes; choose more, or 0 for all");
  const double left_out =
      1.0 - static_cast<double>(s.limit) / static_cast<double>(data.train->size());
  data.train =
      subset(data.train,
             mlo::split_by_class(*data.train, left_out, static_cast<uint64_t>(s.split_seed)).train);
}

std::vector<int64_t> all_rows(const mlo::ImageSet& images) {
  std::vector<int64_t> rows(static_cast<std::size_t>(images.size()));
  std::iota(rows.begin(), rows.end(), int64_t{0});
  return rows;
}

std::vector<int64_t> joined(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  std::vector<int64_t> all;
  std::merge(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(all));
  return all;
}

void divide(const Settings::Data& s, Dataset& data) {
  // Images are held out to be judged by their labels.
  if (s.held_out > 0.0 && data.labelled()) {
    mlo::Split parts = split(data, s.held_out, "data.held_out",
                             static_cast<uint64_t>(s.split_seed) + 1, "held-out");
    data.head = std::move(parts.train);
    data.held_out = std::move(parts.held_out);
  } else {
    data.head = all_rows(*data.train);
  }
  data.pretrain = data.unlabelled          ? all_rows(*data.unlabelled)
                  : s.pretrain_on == "all" ? joined(data.head, data.held_out)
                                           : data.head;
}

void check_counts(const Settings& settings, const Dataset& data) {
  const Method& method = method_of(settings);
  const auto check = [&](const std::string& level, std::size_t images, int64_t batch,
                         const std::string& cure) {
    if (static_cast<int64_t>(images) < batch)
      throw mlo::ConfigError(level + ".batch = " + std::to_string(batch) + ", but there are only " +
                             std::to_string(images) +
                             " images for that level; choose a smaller batch" + cure +
                             (settings.data.limit > 0 ? ", or a larger data.limit" : ""));
  };
  check("pretrain", data.pretrain.size(), settings.pretrain.batch, "");
  if (method.levels == 3) check("head", data.head.size(), settings.head.batch, "");
  if (method.learns())
    check("masker", data.held_out.size(), settings.masker.batch, " or a larger data.held_out");
}

void check_labels(const Settings& settings, const Dataset& data) {
  const Method& method = method_of(settings);
  if (!method.learns() || data.labelled()) return;
  const bool none = data.train->classes().front() == "unlabelled";
  throw mlo::ConfigError(
      "run.method = " + settings.run.method + " learns from labels, and " + settings.data.path +
      " has " + (none ? "none" : "one class only, '" + data.train->classes().front() + "'") +
      "; expected one folder a class, two or more. Images without labels are for --method mae, "
      "u-mae or fixed" +
      (method.levels == 3 ? ", or for data.unlabelled beside labelled ones" : ""));
}

std::string described(const mlo::ImageSize& size) {
  return std::to_string(size.width) + " × " + std::to_string(size.height);
}

// The side of the network's input, where it is not given: the images', if they are square and all
// alike.
void choose_size(const Settings& settings, const Opened& opened, Dataset& data) {
  data.image_size = settings.model.image_size;
  if (data.format != "folder" && data.image_size == 0) {
    const at::Tensor first = data.train->image(0);
    if (first.size(1) != first.size(2))
      throw mlo::ConfigError(
          settings.data.path + ": images of " + described({first.size(2), first.size(1)}) +
          " pixels, and the network's are square; set model.image_size, to which they are resized");
    data.image_size = first.size(1);
  }
  const mlo::ImageSize* odd = nullptr;
  const fs::path* odd_file = nullptr;
  const auto first = [&]() -> const FolderImages& { return opened.folders.front(); };
  if (!opened.folders.empty() && data.image_size == 0)
    data.image_size = first().sizes.front().width;
  int64_t narrowest = INT64_MAX, widest = 0, least = INT64_MAX, most = 0, others = 0;
  for (const FolderImages& folder : opened.folders)
    for (std::size_t i = 0; i < folder.sizes.size(); ++i) {
      const mlo::ImageSize& size = folder.sizes[i];
      narrowest = std::min(narrowest, size.width), widest = std::max(widest, size.width);
      least = std::min(least, size.height), most = std::max(most, size.height);
      if (size == mlo::ImageSize{data.image_size, data.image_size}) continue;
      if (++others == 1) odd = &size, odd_file = &folder.files[i];
    }
  if (others == 0) return;
  if (settings.model.image_size == 0) {
    const std::string cure =
        "; set model.image_size (a multiple of model.patch, 224 for example), and all are resized "
        "to it by " +
        std::string("their shorter side and cropped in the middle");
    if (data.format == "folder" && odd == &first().sizes.front())
      throw mlo::ConfigError("'" + odd_file->string() + "' is " + described(*odd) +
                             " pixels, and the network's images are square" + cure);
    throw mlo::ConfigError("'" + odd_file->string() + "' is " + described(*odd) + " pixels, and " +
                           (data.format == "folder" ? "'" + first().files.front().string() + "' is "
                                                    : "the others are ") +
                           described({data.image_size, data.image_size}) + cure);
  }
  if (settings.augmentation.crop != "resized")
    data.notices.push_back(std::to_string(others) + (others == 1 ? " image is" : " images are") +
                           " not of the network's size (widths " + std::to_string(narrowest) +
                           " to " + std::to_string(widest) + ", heights " + std::to_string(least) +
                           " to " + std::to_string(most) + "; the first is '" + odd_file->string() +
                           "'): resized by the shorter side and cropped to " +
                           described({data.image_size, data.image_size}) + " (model.image_size)");
}

// Of up to 5,000 of the images to pretrain on, spread evenly: folders and files come class by
// class.
void measure(Dataset& data) {
  const mlo::ImageSet& images = *data.pretrain_images();
  const int64_t size = images.size(), count = std::min<int64_t>(size, 5000);
  mlo::Augmentation plain;
  plain.size = data.image_size;
  at::Tensor sum = at::zeros({images.channels()}, at::kDouble), squares = sum.clone();
  int64_t values = 0;
  for (int64_t begin = 0; begin < count; begin += 100) {
    std::vector<int64_t> rows;
    for (int64_t i = begin; i < std::min(begin + 100, count); ++i) rows.push_back(i * size / count);
    const at::Tensor part =
        mlo::image_batch(images, rows, 0, static_cast<int64_t>(rows.size()), plain)[0].to(
            at::kDouble);
    sum += part.sum({0, 2, 3});
    squares += part.square().sum({0, 2, 3});
    values += part.numel() / part.size(1);
  }
  const at::Tensor mean = sum / values,
                   deviation = (squares / values - mean.square()).clamp_min(0).sqrt();
  for (int64_t c = 0; c < mean.size(0); ++c) {
    data.mean.push_back(mean[c].item<double>());
    data.deviation.push_back(
        std::max(deviation[c].item<double>(), 1e-3));  // all images of one colour
  }
}

void normalize(const Settings::Data& s, Dataset& data) {
  if (s.normalize != "imagenet") return measure(data);
  if (data.train->channels() != 3)
    throw mlo::ConfigError(
        "data.normalize = imagenet is for colour images, and these are grey; use data");
  data.mean = {0.485, 0.456, 0.406};
  data.deviation = {0.229, 0.224, 0.225};
}

void add(Digest& digest, const mlo::ImageSet& images, bool in_memory) {
  digest.add(images.size());
  for (const std::string& name : images.classes()) digest.add(name);
  for (int64_t i = 0; i < images.size(); ++i) digest.add(images.label(i));
  const int64_t count = in_memory ? images.size() : std::min<int64_t>(images.size(), 64);
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor image = images.image(i * images.size() / count).contiguous();
    for (const int64_t side : image.sizes()) digest.add(side);
    digest.add(std::string_view(static_cast<const char*>(image.const_data_ptr()),
                                static_cast<std::size_t>(image.numel())));
  }
}

}  // namespace

std::string folder_name(const fs::path& folder) {
  const fs::path whole = fs::absolute(folder).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

std::shared_ptr<const mlo::ImageSet> subset(std::shared_ptr<const mlo::ImageSet> images,
                                            std::vector<int64_t> rows) {
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

void Dataset::require_test() const {
  if (!labelled())
    throw mlo::ConfigError("'" + name +
                           "' has no labels, by which an encoder is judged; give a folder with one "
                           "folder a class (--data FOLDER)");
  if (!test)
    throw mlo::ConfigError("'" + name +
                           "' has no test images; add a folder test/ (or val/, valid/), set "
                           "data.test_fraction above 0, or give "
                           "another folder (--data FOLDER)");
}

void Dataset::resolve(Settings& settings) const {
  settings.model.image_size = image_size;
  settings.data.channels = train->channels();
}

std::string Dataset::fingerprint() const {
  Digest digest;
  digest.add(files);
  for (const auto* set : {&train, &test, &unlabelled}) {
    digest.add(static_cast<uint64_t>(*set != nullptr));
    if (*set) add(digest, **set, format != "folder" && *set != unlabelled);
  }
  for (const auto* rows : {&pretrain, &head, &held_out}) {
    digest.add(static_cast<uint64_t>(rows->size()));
    for (const int64_t row : *rows) digest.add(row);
  }
  digest.add(image_size);
  return digest.hex();
}

Dataset open_dataset(const Settings& settings) {
  const Settings::Data& s = settings.data;
  if (s.path.empty())
    throw mlo::ConfigError("data.path is empty: give the folder with the images (--data FOLDER)");
  fs::path folder = s.path;
  if (!is_folder(folder))
    throw mlo::ConfigError("data.path = " + s.path +
                           (is_there(folder) ? ": is a file, not a folder" : ": no such folder") +
                           "; expected the folder with the images (--data FOLDER)");
  for (const char* inside : {"cifar-10-batches-bin", "cifar-100-binary"})
    if (is_folder(folder / inside)) folder /= inside;

  Dataset data;
  data.name = folder_name(folder);
  data.format = s.format == "auto" ? format_of(folder) : s.format;
  const Opened opened = open(settings, folder, data);
  check_labels(settings, data);
  match_classes(s.path, data);
  choose_size(settings, opened, data);
  keep_test(s, data);
  limit(s, data);
  divide(s, data);

  check_counts(settings, data);
  if (settings.augmentation.crop == "pad" && settings.augmentation.padding > data.image_size)
    throw mlo::ConfigError(
        "augmentation.padding = " + std::to_string(settings.augmentation.padding) +
        " for images of " + std::to_string(data.image_size) +
        " pixels: expected no more, or a crop may hold nothing of its image");
  model_options(settings, data).validate();
  check_memory(settings, data);
  normalize(s, data);
  data.augmented(settings).validate(data.train->channels());
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
