#include "mlomae/data/dataset.h"

#include "mlomae/config/methods.h"
#include "mlomae/data/divide.h"
#include "mlomae/data/memory.h"
#include "mlomae/data/open_parts.h"
#include "mlomae/message.h"

#include <ATen/ATen.h>
#include <mlo/data/image_file.h>
#include <mlo/data/image_source.h>
#include <torch/types.h>

#include <algorithm>

namespace mlomae {
namespace {

namespace fs = std::filesystem;

void check_counts(const Settings& settings, const Dataset& data) {
  const Method& method = method_of(settings);
  const auto check = [&](const std::string& level, std::size_t images, int64_t batch,
                         const std::string& cure) {
    require(
        static_cast<int64_t>(images) >= batch,
        "{}.batch = {}, but there are only {} images for that level; choose a smaller batch{}{}",
        level, batch, images, cure, settings.data.limit > 0 ? ", or a larger data.limit" : "");
  };
  check("pretrain", data.pretrain.size(), settings.pretrain.batch, "");
  if (method.levels == 3) check("head", data.head.size(), settings.head.batch, "");
  if (method.learns())
    check("masker", data.held_out.size(), settings.masker.batch, " or a larger data.held_out");
}

std::string described(const mlo::ImageSize& size) {
  return message("{} × {}", size.width, size.height);
}

// The side of the network's input, where it is not given: the images', if they are square.
int64_t side_of(const Settings& settings, const std::vector<FolderImages>& folders,
                const Dataset& data) {
  if (settings.model.image_size > 0) return settings.model.image_size;
  if (data.format == "folder") return folders.front().sizes.front().width;
  const at::Tensor first = data.train->image(0);
  require(first.size(1) == first.size(2),
          "{}: images of {} pixels, and the network's are square; set model.image_size, to which "
          "they are resized",
          settings.data.path, described({first.size(2), first.size(1)}));
  return first.size(1);
}

// The image files that are not of the network's size.
struct Odd {
  int64_t count = 0;
  const FolderImages* folder = nullptr;  // of the first of them
  std::size_t row = 0;
  int64_t narrowest = INT64_MAX, widest = 0, least = INT64_MAX, most = 0;  // of all

  Odd(const std::vector<FolderImages>& folders, int64_t side) {
    for (const FolderImages& f : folders)
      for (std::size_t i = 0; i < f.sizes.size(); ++i) {
        const mlo::ImageSize& size = f.sizes[i];
        narrowest = std::min(narrowest, size.width), widest = std::max(widest, size.width);
        least = std::min(least, size.height), most = std::max(most, size.height);
        if (size == mlo::ImageSize{side, side}) continue;
        if (++count == 1) folder = &f, row = i;
      }
  }
  std::string file() const { return folder->files[row].string(); }
  const mlo::ImageSize& size() const { return folder->sizes[row]; }
};

[[noreturn]] void refuse_sizes(const Odd& odd, const std::vector<FolderImages>& folders,
                               const Dataset& data) {
  const char* cure =
      "; set model.image_size (a multiple of model.patch, 224 for example), and all are resized to "
      "it by their shorter side and cropped in the middle";
  const FolderImages& first = folders.front();
  if (data.format == "folder" && odd.folder == &first && odd.row == 0)
    refuse("'{}' is {} pixels, and the network's images are square{}", odd.file(),
           described(odd.size()), cure);
  refuse(
      "'{}' is {} pixels, and {} {}{}", odd.file(), described(odd.size()),
      data.format == "folder" ? message("'{}' is", first.files.front().string()) : "the others are",
      described({data.image_size, data.image_size}), cure);
}

void choose_size(const Settings& settings, const std::vector<FolderImages>& folders,
                 Dataset& data) {
  data.image_size = side_of(settings, folders, data);
  const Odd odd(folders, data.image_size);
  if (odd.count == 0) return;
  if (settings.model.image_size == 0) refuse_sizes(odd, folders, data);
  if (settings.augmentation.crop != "resized")
    data.notices.push_back(message(
        "{} not of the network's size (widths {} to {}, heights {} to {}; the first is '{}'): "
        "resized by the shorter side and cropped to {} (model.image_size)",
        odd.count == 1 ? "1 image is" : message("{} images are", odd.count), odd.narrowest,
        odd.widest, odd.least, odd.most, odd.file(),
        described({data.image_size, data.image_size})));
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
  require(data.train->channels() == 3,
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
  require(
      labelled(),
      "'{}' has no labels, by which an encoder is judged; give a folder with one folder a class "
      "(--data FOLDER)",
      name);
  require(test != nullptr,
          "'{}' has no test images; add a folder test/ (or val/, valid/), set data.test_fraction "
          "above 0, or give another folder (--data FOLDER)",
          name);
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
  if (trained_by_maps) add(digest, *maps, format != "folder");
  for (const auto* rows : {&pretrain, &head, &held_out}) {
    digest.add(static_cast<uint64_t>(rows->size()));
    for (const int64_t row : *rows) digest.add(row);
  }
  digest.add(image_size);
  return digest.hex();
}

Dataset open_dataset(const Settings& settings) {
  Dataset data;
  const std::vector<FolderImages> folders = open_parts(settings, data);
  choose_size(settings, folders, data);
  divide(settings.data, data);
  check_counts(settings, data);
  require(settings.augmentation.crop != "pad" || settings.augmentation.padding <= data.image_size,
          "augmentation.padding = {} for images of {} pixels: expected no more, or a crop may hold "
          "nothing of its image",
          settings.augmentation.padding, data.image_size);
  model_options(settings, data).validate();
  check_memory(settings, data);
  normalize(settings.data, data);
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
