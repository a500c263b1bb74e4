#include "mlomae/data/open_parts.h"

#include "mlomae/config/methods.h"
#include "mlomae/data/maps.h"
#include "mlomae/message.h"

#include <algorithm>

namespace mlomae {
namespace {

namespace fs = std::filesystem;
using Images = std::shared_ptr<const mlo::ImageSet>;

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
  require(!images.empty() && !labels.empty(),
          "{0}: expected the files {1}-images-idx3-ubyte and {1}-labels-idx1-ubyte, plain or .gz",
          folder.string(), part);
  return mlo::idx_images(images, labels);
}

// The folder with the images, without the one that CIFAR's archives put around them.
fs::path found(const Settings::Data& s) {
  require(!s.path.empty(), "data.path is empty: give the folder with the images (--data FOLDER)");
  fs::path folder = s.path;
  require(is_folder(folder),
          "data.path = {}: {}; expected the folder with the images (--data FOLDER)", s.path,
          is_there(folder) ? "is a file, not a folder" : "no such folder");
  for (const char* inside : {"cifar-10-batches-bin", "cifar-100-binary"})
    if (is_folder(folder / inside)) folder /= inside;
  return folder;
}

FolderOptions folder_options(const Settings& settings, int64_t channels) {
  return {.channels = channels,
          .labels_needed = method_of(settings).head,
          .skip_bad = settings.data.on_bad_image == "skip"};
}

void open_folder(const Settings& settings, const fs::path& folder, Dataset& data,
                 std::vector<FolderImages>& folders) {
  const int64_t channels = settings.data.channels == 0 ? 3 : settings.data.channels;
  FolderParts parts = read_folder(folder, folder_options(settings, channels), data.notices);
  Digest digest;
  digest.add(parts.train.digest.value());
  data.train = parts.train.images;
  folders.push_back(std::move(parts.train));
  if (parts.test) {
    digest.add(parts.test->digest.value());
    data.test = parts.test->images;
    folders.push_back(std::move(*parts.test));
  }
  data.files = digest.value();
}

void open_unlabelled(const Settings& settings, Dataset& data, std::vector<FolderImages>& folders) {
  const std::string& path = settings.data.unlabelled;
  require(!method_of(settings).head || method_of(settings).levels == 3,
          "data.unlabelled = {}: run.method = {} trains its first level on labels too; leave it "
          "empty, or take mlo-mae",
          path, settings.run.method);
  require(is_folder(path), "data.unlabelled = {}: no such folder", path);
  folders.push_back(
      read_unlabelled(path, folder_options(settings, data.train->channels()), data.notices));
  data.unlabelled = folders.back().images;
  Digest digest;
  digest.add(data.files);
  digest.add(folders.back().digest.value());
  data.files = digest.value();
}

void check_labels(const Settings& settings, const Dataset& data) {
  const Method& method = method_of(settings);
  if (!method.head || data.labelled()) return;
  const std::string& only = data.train->classes().front();
  refuse(
      "run.method = {} learns from labels, and {} has {}; expected one folder a class, two or "
      "more. Images without labels are for --method mae, u-mae or fixed{}",
      method.name, settings.data.path,
      only == "unlabelled" ? "none" : message("one class only, '{}'", only),
      method.levels == 3 ? ", or for data.unlabelled beside labelled ones" : "");
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
    refuse(
        "{}: there are test images of the {} {}, and none to train on{}; both parts must call "
        "their classes alike",
        where, only_test.size() == 1 ? "class" : "classes", some_names(only_test),
        only_train.empty()
            ? ""
            : message(" (the training images alone have {})", some_names(only_train)));
  data.notices.push_back(message("{}: there is no test image of the {} {}", where,
                                 only_train.size() == 1 ? "class" : "classes",
                                 some_names(only_train)));
  data.test = std::make_shared<Relabelled>(data.test, train, std::move(labels));
}

void open_maps(const Settings& settings, const fs::path& root,
               const std::vector<FolderImages>& folders, Dataset& data) {
  const Settings::Data& s = settings.data;
  require(is_folder(s.maps), "data.maps = {}: no such folder", s.maps);
  require(!data.unlabelled,
          "data.maps = {} with data.unlabelled = {}: maps are of the images of data.path, and the "
          "reconstruction level is trained on others; leave one of the two empty",
          s.maps, s.unlabelled);
  data.maps = data.format == "folder"
                  ? folder_maps(s.maps, root, folders.front().files, folders.front().sizes)
                  : idx_maps(s.maps, *data.train);
  data.trained_by_maps = method_of(settings).masks == Masks::known;
  check_maps(s.maps, *data.maps);
}

}  // namespace

std::vector<FolderImages> open_parts(const Settings& settings, Dataset& data) {
  const Settings::Data& s = settings.data;
  const fs::path folder = found(s);
  data.name = folder_name(folder);
  data.format = s.format == "auto" ? format_of(folder) : s.format;
  std::vector<FolderImages> folders;
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
    open_folder(settings, folder, data, folders);
  }
  require(s.channels == 0 || s.channels == data.train->channels(),
          "data.channels = {}, but the images have {}; leave it 0", s.channels,
          data.train->channels());
  if (!s.unlabelled.empty()) open_unlabelled(settings, data, folders);
  check_labels(settings, data);
  match_classes(s.path, data);
  if (!s.maps.empty()) open_maps(settings, folder, folders, data);
  return folders;
}

}  // namespace mlomae
