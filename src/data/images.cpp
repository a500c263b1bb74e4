#include "mlo/data/images.h"

#include "data/fingerprint.h"
#include "io/regular_file.h"
#include "io/stored_tensor.h"
#include "mlo/error.h"
#include "replay/random.h"
#include "text.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randperm.h>

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
  return message("labels {}, {} classes {}", labels.text(), images.classes().size(), names.text());
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
      fingerprint_ = message("images [{}] {}, {}", fmt::join(images_.sizes(), ", "), sum.text(),
                             labels_and_classes(*this));
    });
    return fingerprint_;
  }

 private:
  at::Tensor images_, labels_;
  std::vector<std::string> classes_;
  mutable std::once_flag summed_up_;
  mutable std::string fingerprint_;
};

// What cannot be looked at counts as there, so that opening it says why.
bool is_there(const fs::path& file) {
  std::error_code error;
  return fs::symlink_status(file, error).type() != fs::file_type::not_found;
}

std::vector<std::string> numbers_to(int64_t count) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < count; ++i) names.push_back(message("{}", i));
  return names;
}

// Lines of a file of class names; `count` numbers in its place when there is none.
std::vector<std::string> class_names(const fs::path& file, int64_t count) {
  if (!is_there(file)) return numbers_to(count);
  std::vector<std::string> names;
  std::istringstream in(read_file(file, 1 << 20));
  for (std::string line; std::getline(in, line);) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())) != 0)
      line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  require<Error>(static_cast<int64_t>(names.size()) == count,
                 "{}: names {} classes, expected {}; get it again, or remove it (classes are "
                 "numbers then)",
                 file.string(), names.size(), count);
  return names;
}

struct Cifar {
  int64_t label_bytes = 1;  // before the pixels
  int64_t label_at = 0;
  int64_t classes = 10;
};

constexpr int64_t kCifarPixels = 3 * 32 * 32;

void read_cifar(const fs::path& file, const Cifar& format, std::vector<at::Tensor>& images,
                std::vector<at::Tensor>& labels) {
  const auto fail = [&](const std::string& what, const std::string& cure) {
    refuse<Error>("{}: {}; {}", file.string(), what, cure);
  };
  RegularFile in(file, fail);
  const int64_t record = format.label_bytes + kCifarPixels, size = static_cast<int64_t>(in.size());
  if (size == 0 || size % record != 0)
    fail(message("has {} bytes, expected a multiple of {} (label and 32 x 32 x 3 pixels of CIFAR)",
                 size, record),
         "it is truncated or of another format: get it again");
  const int64_t count = size / record;
  images.push_back(allocated({count, 3, 32, 32}, at::kByte));
  labels.push_back(allocated({count}, at::kLong));
  if (!images.back().defined() || !labels.back().defined())
    fail(message("needs {} bytes of memory", size), "free some");
  std::array<uint8_t, 2> label = {};
  for (int64_t i = 0; i < count; ++i) {
    in.read(label.data(), static_cast<uint64_t>(format.label_bytes));
    in.read(images.back().mutable_data_ptr<uint8_t>() + i * kCifarPixels, kCifarPixels);
    const int64_t given = label[static_cast<std::size_t>(format.label_at)];
    if (given >= format.classes)
      fail(message("gives image {} the label {}, expected 0 to {}", i, given, format.classes - 1),
           "it is damaged or of another format: get it again");
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
  return message("{} images {}, {}", size(), sum.text(), labels_and_classes(*this));
}

std::shared_ptr<const ImageSet> tensor_images(at::Tensor images, at::Tensor labels,
                                              std::vector<std::string> classes) {
  require(images.defined() && images.dim() == 4 && images.scalar_type() == at::kByte &&
              (images.size(1) == 1 || images.size(1) == 3) && images.numel() > 0,
          "tensor_images: the images must be uint8 [N, 1 or 3, H, W], none of these 0");
  require(labels.defined() && labels.dim() == 1 && labels.scalar_type() == at::kLong &&
              labels.size(0) == images.size(0),
          "tensor_images: the labels must be int64 [{}], one for each image", images.size(0));
  const int64_t least = labels.min().item<int64_t>(), most = labels.max().item<int64_t>();
  if (classes.empty()) classes = numbers_to(most + 1);
  require(least >= 0 && most < static_cast<int64_t>(classes.size()),
          "tensor_images: labels from {} to {} with {} classes; they must be at least 0, and less "
          "than the number of classes",
          least, most, classes.size());
  return std::make_shared<TensorImages>(images.cpu().contiguous(), labels.cpu().contiguous(),
                                        std::move(classes));
}

std::shared_ptr<const ImageSet> cifar10_images(const fs::path& folder, bool train) {
  const Cifar format;
  std::vector<at::Tensor> images, labels;
  if (!train) {
    read_cifar(folder / "test_batch.bin", format, images, labels);
  } else {
    for (int i = 1; i <= 5; ++i) {
      const fs::path file = folder / message("data_batch_{}.bin", i);
      if (i == 1 || is_there(file)) read_cifar(file, format, images, labels);
    }
  }
  return tensor_images(at::cat(images), at::cat(labels),
                       class_names(folder / "batches.meta.txt", 10));
}

std::shared_ptr<const ImageSet> cifar100_images(const fs::path& folder, bool train, bool coarse) {
  const Cifar format{.label_bytes = 2, .label_at = coarse ? 0 : 1, .classes = coarse ? 20 : 100};
  std::vector<at::Tensor> images, labels;
  read_cifar(folder / (train ? "train.bin" : "test.bin"), format, images, labels);
  return tensor_images(
      images[0], labels[0],
      class_names(folder / (coarse ? "coarse_label_names.txt" : "fine_label_names.txt"),
                  format.classes));
}

Split split_by_class(const ImageSet& images, double held_out, uint64_t seed) {
  require(held_out > 0.0 && held_out < 1.0,
          "split_by_class: held_out = {}; it must be more than 0 and less than 1", held_out);
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
  require(!split.held_out.empty() && !split.train.empty(),
          "split_by_class: {} images of {} classes cannot be divided; one class must have two or "
          "more",
          images.size(), images.classes().size());
  std::sort(split.train.begin(), split.train.end());
  std::sort(split.held_out.begin(), split.held_out.end());
  return split;
}

}  // namespace mlo
