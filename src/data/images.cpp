#include "mlo/data/images.h"

#include "data/fingerprint.h"
#include "io/regular_file.h"
#include "io/stored_tensor.h"
#include "mlo/error.h"
#include "replay/random.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randperm.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <sstream>

namespace mlo {
namespace {

namespace fs = std::filesystem;

std::string labels_and_classes(const ImageSet& images) {
  detail::Checksum labels, names;
  for (int64_t i = 0; i < images.size(); ++i) {
    const int64_t label = images.label(i);
    labels.add(&label, sizeof(label));
  }
  for (const std::string& name : images.classes()) names.add(name);
  return "labels " + labels.text() + ", " + std::to_string(images.classes().size()) + " classes " +
         names.text();
}

class TensorImages final : public ImageSet {
 public:
  TensorImages(at::Tensor images, at::Tensor labels, std::vector<std::string> classes)
      : images_(std::move(images)), labels_(std::move(labels)), classes_(std::move(classes)) {}
  int64_t size() const override { return images_.size(0); }
  int64_t channels() const override { return images_.size(1); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int64_t label(int64_t i) const override { return labels_.const_data_ptr<int64_t>()[i]; }
  at::Tensor image(int64_t i) const override { return images_[i]; }
  std::string fingerprint() const override {
    std::call_once(summed_up_, [this] {
      detail::Checksum sum;
      sum.add(images_);
      fingerprint_ =
          c10::str("images ", images_.sizes(), " ", sum.text(), ", ", labels_and_classes(*this));
    });
    return fingerprint_;
  }

 private:
  at::Tensor images_, labels_;
  std::vector<std::string> classes_;
  mutable std::once_flag summed_up_;
  mutable std::string fingerprint_;
};

RegularFile::Fail failing(const fs::path& file, const std::string& kind) {
  return [=](const std::string& what, const std::string& cure) {
    throw Error(kind + " file '" + file.string() + "' " + what + "; " + cure);
  };
}

// What cannot be looked at counts as there, so that opening it says why.
bool is_there(const fs::path& file) {
  std::error_code error;
  return fs::symlink_status(file, error).type() != fs::file_type::not_found;
}

// Lines of a file of class names; `count` numbers in its place when there is none.
std::vector<std::string> class_names(const fs::path& file, int64_t count, const std::string& kind) {
  std::vector<std::string> names;
  if (!is_there(file)) {
    for (int64_t i = 0; i < count; ++i) names.push_back(std::to_string(i));
    return names;
  }
  std::istringstream in(read_file(file, 1 << 20));
  for (std::string line; std::getline(in, line);) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())) != 0)
      line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  if (static_cast<int64_t>(names.size()) != count)
    throw Error(kind + " file '" + file.string() + "' names " + std::to_string(names.size()) +
                " classes, expected " + std::to_string(count) +
                "; get it again, or remove it (classes are numbers then)");
  return names;
}

struct Cifar {
  std::string kind;         // for messages
  int64_t label_bytes = 1;  // before the pixels
  int64_t label_at = 0;
  int64_t classes = 10;
};

constexpr int64_t kCifarPixels = 3 * 32 * 32;

void read_cifar(const fs::path& file, const Cifar& format, std::vector<at::Tensor>& images,
                std::vector<at::Tensor>& labels) {
  RegularFile in(file, failing(file, format.kind));
  const int64_t record = format.label_bytes + kCifarPixels, size = static_cast<int64_t>(in.size());
  if (size == 0 || size % record != 0)
    throw Error(
        format.kind + " file '" + file.string() + "' has " + std::to_string(size) +
        " bytes, expected a multiple of " + std::to_string(record) +
        " (label and 32 x 32 x 3 pixels); it is truncated or of another format: get it again");
  const int64_t count = size / record;
  images.push_back(allocated({count, 3, 32, 32}, at::kByte));
  labels.push_back(allocated({count}, at::kLong));
  if (!images.back().defined() || !labels.back().defined())
    throw Error(format.kind + " file '" + file.string() + "' needs " + std::to_string(size) +
                " bytes of memory; free some");
  std::array<uint8_t, 2> label = {};
  for (int64_t i = 0; i < count; ++i) {
    in.read(label.data(), static_cast<uint64_t>(format.label_bytes));
    in.read(images.back().mutable_data_ptr<uint8_t>() + i * kCifarPixels, kCifarPixels);
    const int64_t given = label[static_cast<std::size_t>(format.label_at)];
    if (given >= format.classes)
      throw Error(format.kind + " file '" + file.string() + "' gives image " + std::to_string(i) +
                  " the label " + std::to_string(given) + ", expected 0 to " +
                  std::to_string(format.classes - 1) +
                  "; it is damaged or of another format: get it again");
    labels.back().mutable_data_ptr<int64_t>()[i] = given;
  }
}

}  // namespace

std::string ImageSet::fingerprint() const {
  constexpr int64_t kLooks = 16;
  const int64_t looks = std::min(kLooks, size());
  detail::Checksum sum;
  for (int64_t i = 0; i < looks; ++i) {
    try {
      sum.add(image(looks > 1 ? i * (size() - 1) / (looks - 1) : 0));
    } catch (const Error& error) {
      sum.add(error.what());  // the batch that needs it says so
    }
  }
  return std::to_string(size()) + " images " + sum.text() + ", " + labels_and_classes(*this);
}

std::shared_ptr<const ImageSet> tensor_images(at::Tensor images, at::Tensor labels,
                                              std::vector<std::string> classes) {
  if (!images.defined() || images.dim() != 4 || images.scalar_type() != at::kByte ||
      (images.size(1) != 1 && images.size(1) != 3) || images.numel() == 0)
    throw ConfigError("tensor_images: expected images as uint8 [N, 1 or 3, H, W], none of these 0");
  if (!labels.defined() || labels.dim() != 1 || labels.scalar_type() != at::kLong ||
      labels.size(0) != images.size(0))
    throw ConfigError("tensor_images: expected labels as int64 [" + std::to_string(images.size(0)) +
                      "], one for each image");
  const int64_t least = labels.min().item<int64_t>(), most = labels.max().item<int64_t>();
  if (classes.empty())
    for (int64_t i = 0; i <= most; ++i) classes.push_back(std::to_string(i));
  if (least < 0 || most >= static_cast<int64_t>(classes.size()))
    throw ConfigError("tensor_images: labels from " + std::to_string(least) + " to " +
                      std::to_string(most) + ", expected 0 to " +
                      std::to_string(static_cast<int64_t>(classes.size()) - 1) +
                      ", the number of classes less one");
  return std::make_shared<TensorImages>(images.cpu().contiguous(), labels.cpu().contiguous(),
                                        std::move(classes));
}

std::shared_ptr<const ImageSet> cifar10_images(const fs::path& folder, bool train) {
  const Cifar format{.kind = "CIFAR-10"};
  std::vector<at::Tensor> images, labels;
  if (!train) {
    read_cifar(folder / "test_batch.bin", format, images, labels);
  } else {
    for (int i = 1; i <= 5; ++i) {
      const fs::path file = folder / ("data_batch_" + std::to_string(i) + ".bin");
      if (i == 1 || is_there(file)) read_cifar(file, format, images, labels);
    }
  }
  return tensor_images(at::cat(images), at::cat(labels),
                       class_names(folder / "batches.meta.txt", 10, format.kind));
}

std::shared_ptr<const ImageSet> cifar100_images(const fs::path& folder, bool train, bool coarse) {
  const Cifar format{.kind = "CIFAR-100",
                     .label_bytes = 2,
                     .label_at = coarse ? 0 : 1,
                     .classes = coarse ? 20 : 100};
  std::vector<at::Tensor> images, labels;
  read_cifar(folder / (train ? "train.bin" : "test.bin"), format, images, labels);
  return tensor_images(
      images[0], labels[0],
      class_names(folder / (coarse ? "coarse_label_names.txt" : "fine_label_names.txt"),
                  format.classes, format.kind));
}

Split split_by_class(const ImageSet& images, double held_out, uint64_t seed) {
  if (!(held_out > 0.0 && held_out < 1.0))
    throw ConfigError("split_by_class: held_out is " + std::to_string(held_out) +
                      ", expected more than 0 and less than 1");
  std::vector<std::vector<int64_t>> rows(images.classes().size());
  for (int64_t i = 0; i < images.size(); ++i)
    rows[static_cast<std::size_t>(images.label(i))].push_back(i);
  Split split;
  for (std::size_t c = 0; c < rows.size(); ++c) {
    const auto count = static_cast<int64_t>(rows[c].size());
    if (count == 0) continue;
    const int64_t out =
        count == 1 ? 0
                   : std::clamp<int64_t>(std::llround(held_out * static_cast<double>(count)), 1,
                                         count - 1);
    auto generator =
        at::detail::createCPUGenerator(stream_key(seed, 0, static_cast<int64_t>(c), 0));
    const at::Tensor order = at::randperm(count, generator, at::kLong);
    const auto* place = order.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < count; ++i)
      (i < out ? split.held_out : split.train)
          .push_back(rows[c][static_cast<std::size_t>(place[i])]);
  }
  if (split.held_out.empty() || split.train.empty())
    throw ConfigError("split_by_class: " + std::to_string(images.size()) + " images of " +
                      std::to_string(images.classes().size()) +
                      " classes cannot be divided, expected a class with two or more");
  std::sort(split.train.begin(), split.train.end());
  std::sort(split.held_out.begin(), split.held_out.end());
  return split;
}

}  // namespace mlo
