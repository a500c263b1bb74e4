// Maps beside images: where they are found, what does not fit, and that a crop of one is a crop of
// both.
#include "mlomae/data/maps.h"

#include "mlomae/config/presets.h"
#include "mlomae/data/dataset.h"
#include "mlomae/data/image_writer.h"
#include "mlomae/training/monitor.h"
#include "mlomae/training/pretraining.h"

#include "io/files.h"

#include <mlo/data/image_file.h>
#include <mlo/data/image_source.h>
#include <mlo/error.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <map>

#include "catch.h"

using Catch::Matchers::Contains;
using namespace mlomae;

namespace {

namespace fs = std::filesystem;

constexpr int64_t kPixels = 8, kTrained = 24, kTested = 4;

// Grey images of two classes as IDX files, or colour ones in folders; a map is 255 exactly where
// its image is bright.
void write_mapped(const fs::path& folder, int64_t channels) {
  for (const char* part : {"train", "test"}) {
    const int64_t count = part == std::string("train") ? kTrained : kTested;
    const auto writer = channels == 1 ? idx_writer(folder, part, count, kPixels)
                                      : folder_writer(folder, part, {"left", "right"});
    for (int64_t row = 0; row < count; ++row) {
      at::Tensor map = torch::zeros({1, kPixels, kPixels}, at::kByte);
      map.narrow(1, row % 5, 4).narrow(2, row % 3, 4).fill_(255);
      const at::Tensor image = map.expand({channels, kPixels, kPixels}) * 0.5 + 20 + row % 2;
      writer->add(image.to(at::kByte), map, row % 2, row);
    }
    writer->close();
  }
}

Settings mapped_settings(const fs::path& data, const fs::path& maps, const std::string& method) {
  Settings s = preset("demo");
  s.data.path = data, s.data.maps = maps;
  s.data.limit = 12;
  s.run.method = method;
  s.model.patch = 2, s.model.dim = 16, s.model.depth = 1;
  s.masker.hidden = 8;
  s.pretrain.batch = 4, s.head.batch = 4, s.masker.batch = 2;
  s.run.reconstruction_steps = 4;
  return s;
}

std::string words_of_refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const mlo::Error& error) {
    return error.what();
  }
  return "nothing was refused";
}

}  // namespace

TEST_CASE("Maps go with their images, through limits, splits, crops and flips", "[mlomae][maps]") {
  const TemporaryFolder folder;
  for (const int64_t channels : {1, 3}) {
    const fs::path root = folder / (channels == 1 ? "grey" : "colour");
    fs::create_directories(root);
    write_mapped(root, channels);
    const fs::path data = channels == 1 ? root : root / "images",
                   maps = channels == 1 ? root : root / "maps";
    const Settings s = mapped_settings(data, maps, "oracle");
    const Dataset dataset = open_dataset(s);
    REQUIRE(dataset.maps);
    REQUIRE(dataset.maps->size() == dataset.train->size());
    CHECK(dataset.train->size() == 12);
    const mlo::Augmentation augmented = with_map(dataset.augmented(s), channels);
    for (const bool crops : {false, true}) {
      const at::Tensor both =
          mlo::image_batch(*joined(dataset.train, dataset.maps), {0, 1, 2, 3, 4, 5}, 0, 6,
                           crops ? augmented : with_map(dataset.plain(), channels))[0];
      REQUIRE(both.size(1) == channels + 1);
      const at::Tensor map = both.select(1, channels);
      CHECK(at::equal(map, map.gt(0.5).to(at::kFloat)));
      // What is bright, and what is in the map, is the same; around an image there is nothing.
      const at::Tensor image = both.select(1, 0) * dataset.deviation[0] + dataset.mean[0];
      CHECK(at::equal(image.gt(0.3).to(at::kFloat), map));
      CHECK(map.sum().item<double>() > 0.0);
    }
    // The run that is trained by them, and what is seen of it.
    Models models = make_models(s, dataset);
    CHECK(models.masker.is_empty());
    make_engine(s, dataset, models, {}, {})->run();
    const Snapshot snapshot = take_snapshot(s, dataset, models, snapshot_images(dataset, 2), 4);
    CHECK(at::equal(snapshot.map.gt(0.5), snapshot.probability.gt(0.5)));
    CHECK(snapshot.images.size(1) == channels);
    // The same images without maps are other data to an oracle, and the same folder elsewhere is
    // not.
    const std::string plain = open_dataset(mapped_settings(data, "", "mae")).fingerprint();
    CHECK(plain != dataset.fingerprint());
    CHECK(plain == open_dataset(mapped_settings(data, maps, "mae")).fingerprint());
    const std::string fingerprint = dataset.fingerprint();
    fs::rename(root, folder / "elsewhere");
    const fs::path moved = folder / "elsewhere";
    CHECK(open_dataset(mapped_settings(channels == 1 ? moved : moved / "images",
                                       channels == 1 ? moved : moved / "maps", "oracle"))
              .fingerprint() == fingerprint);
    fs::remove_all(moved);
  }
}

TEST_CASE("How much of the maps a masker has found is a number that a masker of the maps has whole",
          "[mlomae][maps]") {
  const TemporaryFolder folder;
  write_mapped(folder / "", 1);
  Settings s = mapped_settings(folder / "", folder / "", "mlo-mae");
  s.data.held_out = 0.5;
  const Dataset dataset = open_dataset(s);
  Models models = make_models(s, dataset);
  std::map<std::string, double> before = monitor_of(s, dataset, models)();
  CHECK(before.at("weight_found") > 0.0);
  CHECK(before.at("weight_found") < 0.6);
  {
    // Bright patches have what is in the maps: a convolution that looks at its middle alone.
    const at::NoGradGuard no_grad;
    auto parameters = models.masker->named_parameters();
    for (auto& p : parameters) p.value().zero_();
    parameters["around.weight"].select(0, 0).select(1, 1).select(1, 1).fill_(1.0);
    parameters["mix.weight"][0][0] = 1.0;
    parameters["output_layer.weight"][0][0] = 5.0;
  }
  std::map<std::string, double> after = monitor_of(s, dataset, models)();
  CHECK(after.at("found") > 0.9);
  CHECK(after.at("weight_found") > before.at("weight_found"));
}

TEST_CASE("Maps that are missing or do not fit are refused by name", "[mlomae][maps]") {
  const TemporaryFolder folder;
  const fs::path grey = folder / "grey", colour = folder / "colour";
  fs::create_directories(grey), fs::create_directories(colour);
  write_mapped(grey, 1), write_mapped(colour, 3);
  const auto open = [](const fs::path& data, const fs::path& maps) {
    return words_of_refusal([&] { open_dataset(mapped_settings(data, maps, "oracle")); });
  };
  CHECK_THAT(open(grey, folder / "nowhere"), Contains("nowhere") && Contains("no such folder"));
  CHECK_THAT(open(grey, colour), Contains("train-maps-idx3-ubyte") && Contains("in their order"));
  CHECK_THAT(open(colour / "images", grey), Contains("is not there") && Contains("train/left"));
  fs::create_directories(folder / "other");
  {
    const auto writer = idx_writer(folder / "other", "train", 3, kPixels);
    for (int64_t i = 0; i < 3; ++i)
      writer->add(torch::zeros({1, kPixels, kPixels}, at::kByte),
                  torch::zeros({1, kPixels, kPixels}, at::kByte), 0, i);
    writer->close();
  }
  CHECK_THAT(open(grey, folder / "other"), Contains("3 maps for 24 training images"));
  const fs::path map = colour / "maps/train/left/000000.png";
  REQUIRE(fs::exists(map));
  mlo::write_png(map, torch::zeros({1, 4, 4}, at::kByte));
  CHECK_THAT(open(colour / "images", colour / "maps"), Contains("4 × 4") && Contains("8 × 8"));
  {
    const fs::path dark = folder / "dark";
    fs::create_directories(dark);
    const auto writer = idx_writer(dark, "train", kTrained, kPixels);
    for (int64_t i = 0; i < kTrained; ++i)
      writer->add(torch::zeros({1, kPixels, kPixels}, at::kByte),
                  torch::ones({1, kPixels, kPixels}, at::kByte), 0, i);
    writer->close();
    CHECK_THAT(open(grey, dark), Contains("24 maps is above 1") && Contains("255"));
  }
  Settings both = mapped_settings(grey, grey, "mlo-mae");
  both.data.unlabelled = colour;
  CHECK_THAT(words_of_refusal([&] { open_dataset(both); }), Contains("data.unlabelled"));
}
