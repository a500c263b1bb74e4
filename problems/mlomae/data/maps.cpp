#include "mlomae/data/maps.h"

#include "mlomae/message.h"

#include <ATen/ATen.h>
#include <mlo/data/idx.h>
#include <mlo/data/image_file.h>
#include <mlo/data/image_files.h>

#include <algorithm>

namespace mlomae {
namespace {

namespace fs = std::filesystem;
using Images = std::shared_ptr<const mlo::ImageSet>;

class Joined final : public mlo::ImageSet {
 public:
  Joined(Images images, Images maps) : images_(std::move(images)), maps_(std::move(maps)) {}
  int64_t size() const override { return images_->size(); }
  int64_t channels() const override { return images_->channels() + 1; }
  const std::vector<std::string>& classes() const override { return images_->classes(); }
  int64_t label(int64_t i) const override { return images_->label(i); }
  at::Tensor image(int64_t i) const override {
    return at::cat({images_->image(i), maps_->image(i)}, 0);
  }

 private:
  Images images_, maps_;
};

}  // namespace

Images idx_maps(const fs::path& folder, const mlo::ImageSet& images) {
  fs::path file = folder / "train-maps-idx3-ubyte";
  std::error_code unknown;
  if (!fs::exists(file, unknown)) file += ".gz";
  require(fs::exists(file, unknown),
          "data.maps = {}: there is no train-maps-idx3-ubyte, plain or .gz; it must hold a map for "
          "each training image, in their order",
          folder.string());
  at::Tensor maps = mlo::read_idx(file);
  require(maps.dim() == 3, "{}: {} dimensions; expected [maps, height, width]", file.string(),
          maps.dim());
  require(maps.size(0) == images.size(),
          "{}: {} maps for {} training images; expected one for each", file.string(), maps.size(0),
          images.size());
  const at::Tensor first = images.image(0);
  require(maps.size(1) == first.size(1) && maps.size(2) == first.size(2),
          "{}: maps of {} × {} pixels for images of {} × {}; expected the same size", file.string(),
          maps.size(2), maps.size(1), first.size(2), first.size(1));
  maps = maps.unsqueeze(1);
  return mlo::tensor_images(maps, at::zeros({maps.size(0)}, at::kLong), {"map"});
}

Images folder_maps(const fs::path& folder, const fs::path& root, const std::vector<fs::path>& files,
                   const std::vector<mlo::ImageSize>& sizes) {
  std::vector<fs::path> maps;
  for (std::size_t i = 0; i < files.size(); ++i) {
    fs::path map = folder / files[i].lexically_relative(root);
    map.replace_extension(".png");
    std::error_code unknown;
    require(fs::exists(map, unknown),
            "data.maps = {}: the map {} of {} is not there; there must be one for each training "
            "image",
            folder.string(), map.string(), files[i].string());
    const mlo::ImageSize size = mlo::image_size(map);
    require(size == sizes[i], "{}: a map of {} × {} pixels for '{}' of {} × {}; expected the same",
            map.string(), size.width, size.height, files[i].string(), sizes[i].width,
            sizes[i].height);
    maps.push_back(std::move(map));
  }
  const std::vector<int64_t> labels(maps.size(), 0);
  return mlo::file_images(std::move(maps), labels, {"map"}, /*channels=*/1);
}

void check_maps(const fs::path& folder, const mlo::ImageSet& maps) {
  int64_t highest = 0;
  const int64_t count = std::min<int64_t>(maps.size(), 64);
  for (int64_t i = 0; i < count; ++i)
    highest = std::max(highest, maps.image(i * maps.size() / count).max().item<int64_t>());
  require(highest >= 128,
          "data.maps = {}: nothing in {} maps is above {}; a map is 255 where it shows what counts "
          "and 0 elsewhere",
          folder.string(), count, highest);
}

Images joined(Images images, Images maps) {
  return std::make_shared<Joined>(std::move(images), std::move(maps));
}

mlo::Augmentation with_map(mlo::Augmentation a, int64_t channels) {
  const auto more = [&](std::vector<double>& list, double last) {
    if (list.size() == 1) list.resize(static_cast<std::size_t>(channels), list.front());
    list.push_back(last);
  };
  more(a.mean, 0.0);
  more(a.deviation, 1.0);
  return a;
}

}  // namespace mlomae
