// What people keep images in: folders of every shape, and what is said about them.
#include "mlomae/config/json.h"
#include "mlomae/config/presets.h"
#include "mlomae/data/dataset.h"
#include "mlomae/data/memory.h"
#include "mlomae/training/pretraining.h"

#include "io/files.h"

#include <mlo/data/image_file.h>
#include <mlo/data/image_source.h>
#include <mlo/error.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <numeric>

#include "catch.h"

using Catch::Matchers::Contains;
using namespace mlomae;

namespace {

namespace fs = std::filesystem;

// Images on the disk, each a little different.
class Pictures {
 public:
  fs::path path(const std::string& name = "") const { return folder_ / ("set/" + name); }
  void put(const std::string& file, int64_t width = 8, int64_t height = 8) {
    fs::create_directories(path(file).parent_path());
    torch::manual_seed(++count_);
    mlo::write_png(path(file), torch::randint(0, 256, {3, height, width}, at::kByte));
  }
  void fill(const std::string& name, int count, const std::string& extension = ".png") {
    for (int i = 0; i < count; ++i) put(name + "/" + std::to_string(i) + extension);
  }
  fs::path elsewhere(const std::string& name) const { return folder_ / name; }

 private:
  TemporaryFolder folder_;
  uint64_t count_ = 0;
};

Settings settings_for(const fs::path& folder, const std::string& method = "mlo-mae") {
  Settings s = preset("micro");
  s.data.path = folder.string();
  s.run.method = method;
  s.run.reconstruction_steps = 4;
  s.model.patch = 2;
  s.model.dim = 16, s.model.depth = 1, s.model.heads = 2, s.model.decoder_dim = 8,
  s.model.decoder_depth = 1, s.model.decoder_heads = 2;
  s.masker.hidden = 8;
  s.augmentation.padding = 1;
  for (LevelSettings* level :
       std::initializer_list<LevelSettings*>{&s.pretrain, &s.head, &s.masker})
    level->batch = 2;
  return s;
}

std::string refusal(const Settings& s) {
  return message_of<mlo::Error>([&] { open_dataset(s); });
}

std::string notices(const Dataset& data) {
  return std::accumulate(
      data.notices.begin(), data.notices.end(), std::string(),
      [](const std::string& all, const std::string& one) { return all + one + "\n"; });
}

void write_idx(const fs::path& folder, const std::string& part, const std::vector<uint8_t>& labels,
               const std::vector<uint8_t>& values) {
  const auto number = [](std::size_t n) {
    return std::string{0, 0, static_cast<char>(n >> 8 & 255), static_cast<char>(n & 255)};
  };
  std::string images =
                  std::string("\0\0\x08\x03", 4) + number(labels.size()) + number(4) + number(4),
              names = std::string("\0\0\x08\x01", 4) + number(labels.size());
  for (std::size_t i = 0; i < labels.size(); ++i)
    images += std::string(16, static_cast<char>(values[i])), names += static_cast<char>(labels[i]);
  write_bytes(folder / (part + "-images-idx3-ubyte"), images);
  write_bytes(folder / (part + "-labels-idx1-ubyte"), names);
}

}  // namespace

TEST_CASE("Mean and deviation are of the whole set, whatever its order", "[data]") {
  // 9,900 images, half black and half white, class by class.
  const TemporaryFolder folder;
  std::vector<uint8_t> labels(9900), values(9900);
  for (std::size_t i = 4950; i < 9900; ++i) labels[i] = 1, values[i] = 255;
  write_idx(folder / "", "train", labels, values);
  write_idx(folder / "", "test", {0, 1}, {0, 255});
  const Dataset data = open_dataset(settings_for(folder / "", "mae"));
  CHECK(data.mean.at(0) == Approx(0.5).margin(1e-3));
  CHECK(data.deviation.at(0) == Approx(0.5).margin(1e-3));
}

TEST_CASE("Parts of a folder are known by their usual names", "[data]") {
  const auto [train, test] =
      GENERATE(table<const char*, const char*>({{"train", "test"},
                                                {"Training", "Testing"},
                                                {"TRAIN", "Val"},
                                                {"train", "valid"},
                                                {"training", "validation"}}));
  Pictures p;
  for (const char* name : {"cats", "dogs"})
    p.fill(std::string(train) + "/" + name, 6), p.fill(std::string(test) + "/" + name, 3);
  const Dataset data = open_dataset(settings_for(p.path()));
  CHECK(data.train->size() == 12);
  REQUIRE(data.test);
  CHECK(data.test->size() == 6);
  CHECK(data.train->classes() == std::vector<std::string>{"cats", "dogs"});
  CHECK_THAT(notices(data), !Contains("not used"));
}

TEST_CASE("Of several test parts one is taken, and the others are named", "[data]") {
  Pictures p;
  for (const char* name : {"cats", "dogs"})
    p.fill(std::string("train/") + name, 6), p.fill(std::string("valid/") + name, 3);
  p.fill("test", 7);  // as competitions give it: without labels
  p.fill("extra/cats", 5);
  const Dataset data = open_dataset(settings_for(p.path()));
  CHECK(data.test->size() == 6);
  CHECK_THAT(notices(data), Contains("test': 7 images without class folders are not used") &&
                                Contains("valid' is the test part") &&
                                Contains("extra': 5 images beside train/ are not used"));
  // A vehicle, not a part.
  Pictures vehicles;
  for (const char* name : {"bus", "train", "car"}) vehicles.fill(name, 6);
  CHECK(open_dataset(settings_for(vehicles.path())).train->classes().size() == 3);
}

TEST_CASE("What is passed over is said, and what lies deeper is used", "[data]") {
  Pictures p;
  p.fill("cats", 4);
  p.fill("cats/indoors/sofa", 3);
  p.fill("dogs", 4, ".PNG");
  p.fill("dogs/old", 2, ".jfif");  // a PNG by its bytes, whatever its name says
  p.fill("dogs/older", 2, ".jpe");
  for (int i = 0; i < 3; ++i) write_bytes(p.path("cats/" + std::to_string(i) + ".webp"), "RIFF");
  write_bytes(p.path("dogs/a.bmp"), "BM");
  write_bytes(p.path("dogs/.hidden.bmp"), "BM");
  for (const char* name : {"cats/.a.jpg", "dogs/.b.png"}) write_bytes(p.path(name), "hidden");
  write_bytes(p.path("labels.csv"), "a,b");
  p.put("loose.png");
  fs::create_directory_symlink(p.path("cats"), p.path("cats/circle"));
  fs::create_symlink("nowhere.png", p.path("cats/gone.png"));
  const Dataset data = open_dataset(settings_for(p.path()));
  CHECK(data.train->size() + data.test->size() == 15);
  CHECK_THAT(notices(data),
             Contains("passed over 3 .webp, 2 with a dot before the name, 1 .bmp, 1 .csv, 1 no "
                      "regular file (JPEG and PNG are read") &&
                 Contains("7 of 15 images lie in folders inside the class folders") &&
                 Contains("cats/indoors/sofa/0.png") &&
                 Contains("1 image beside the class folders") && Contains("loose.png"));
  fs::create_directories(p.path("foxes"));
  write_bytes(p.path("foxes/a.webp"), "RIFF");
  CHECK_THAT(refusal(settings_for(p.path())), Contains("foxes") && Contains("1 .webp"));
}

TEST_CASE("Parts that call their classes otherwise are told apart by name", "[data]") {
  Pictures p;
  for (const char* name : {"cats", "dogs", "foxes"}) p.fill(std::string("train/") + name, 4);
  for (const char* name : {"dogs", "fox"}) p.fill(std::string("test/") + name, 2);
  CHECK_THAT(refusal(settings_for(p.path())),
             Contains("test images of the class 'fox'") && Contains("'cats', 'foxes'"));
  // A class without a test image is none to refuse, and labels are by name.
  fs::remove_all(p.path("test/fox"));
  const Dataset data = open_dataset(settings_for(p.path()));
  CHECK_THAT(notices(data), Contains("no test image of the classes 'cats', 'foxes'"));
  CHECK(data.test->classes() == data.train->classes());
  CHECK(data.test->label(0) == 1);
}

TEST_CASE("IDX files: the last label may be missing in the test part, and the whole part",
          "[data]") {
  const TemporaryFolder folder;
  std::vector<uint8_t> labels, values;
  for (int i = 0; i < 30; ++i)
    labels.push_back(static_cast<uint8_t>(i % 3)), values.push_back(static_cast<uint8_t>(i));
  write_idx(folder / "", "train", labels, values);
  write_idx(folder / "", "t10k", {0, 1}, {3, 4});
  Settings s = settings_for(folder / "");
  const Dataset data = open_dataset(s);
  CHECK(data.test->classes() == data.train->classes());
  CHECK_THAT(notices(data), Contains("no test image of the class '2'"));
  s.data.test_fraction = 0.3;
  CHECK_THAT(notices(open_dataset(s)), Contains("data.test_fraction = 0.3 is not used"));
  write_idx(folder / "", "t10k", {0, 3}, {3, 4});
  CHECK_THAT(refusal(s), Contains("test images of the class '3'"));
  for (const char* file : {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"})
    fs::remove(folder / file);
  const Dataset cut = open_dataset(s);
  CHECK(cut.test->size() == 9);
  CHECK(cut.train->size() == 21);
  CHECK_THAT(notices(cut), Contains("9 of 30 images are kept"));
}

TEST_CASE("A rare class does not stop a run", "[data]") {
  Pictures p;
  p.fill("common", 30);
  p.fill("rare", 3);
  p.fill("single", 1);
  const Dataset data = open_dataset(settings_for(p.path()));
  const auto of_class = [&](const std::vector<int64_t>& rows, int64_t label) {
    return std::count_if(rows.begin(), rows.end(),
                         [&](int64_t row) { return data.train->label(row) == label; });
  };
  CHECK(of_class(data.head, 1) == 1);
  CHECK(of_class(data.held_out, 1) == 1);
  CHECK(of_class(data.head, 2) == 1);
  CHECK(of_class(data.held_out, 2) == 0);
  CHECK_THAT(notices(data), Contains("no held-out image of 'single'") &&
                                Contains("no test image of 'single'") &&
                                Contains("data.held_out") && Contains("data.test_fraction"));
  Settings s = settings_for(p.path());
  s.data.limit = 2;
  CHECK_THAT(refusal(s), Contains("data.limit = 2") && Contains("3 classes"));
}

TEST_CASE("One class is refused where labels are learned from", "[data]") {
  Pictures p;
  p.fill("cats", 12);
  for (const char* method : {"mlo-mae", "blo-mae"})
    CHECK_THAT(refusal(settings_for(p.path(), method)),
               Contains(method) && Contains("one class only, 'cats'") && Contains("--method mae"));
  const Dataset data = open_dataset(settings_for(p.path(), "mae"));
  CHECK(data.pretrain.size() == 12);
  CHECK_THAT(message_of<mlo::ConfigError>([&] { data.require_test(); }),
             Contains("no labels") && Contains("--data"));
}

TEST_CASE("Images without labels are for the methods that need none", "[data]") {
  Pictures p;
  for (int i = 0; i < 5; ++i) p.put(std::to_string(i) + ".png");
  const auto method = GENERATE("mae", "u-mae", "fixed");
  Settings s = settings_for(p.path(), method);
  {
    const Dataset flat = open_dataset(s);
    CHECK(flat.pretrain.size() == 5);
    CHECK_FALSE(flat.labelled());
    CHECK_FALSE(flat.test);
    torch::manual_seed(0);
    const Models models = make_models(s, flat);
    CHECK_NOTHROW(make_engine(s, flat, models, {}, {})->step());
  }
  CHECK_THAT(refusal(settings_for(p.path())),
             Contains("learns from labels") && Contains("has none") && Contains("data.unlabelled"));
  p.fill("2019/summer", 3);
  const Dataset mixed = open_dataset(s);
  CHECK(mixed.pretrain.size() == 8);
  CHECK_THAT(notices(mixed), Contains("taken without labels"));
}

TEST_CASE("An unlabelled pool is for the reconstruction level, and labelled images for those above",
          "[data]") {
  Pictures p;
  for (const char* name : {"cats", "dogs"}) p.fill(name, 10);
  fs::create_directories(p.elsewhere("pool/deep/er"));
  for (int i = 0; i < 6; ++i)
    mlo::write_png(
        p.elsewhere("pool/deep/" + std::string(i < 2 ? "" : "er/") + std::to_string(i) + ".png"),
        torch::full({3, 8, 8}, 100 + i, at::kByte));
  Settings s = settings_for(p.path());
  s.data.unlabelled = p.elsewhere("pool").string();
  const Dataset data = open_dataset(s);
  CHECK(data.pretrain.size() == 6);
  CHECK(data.pretrain_images()->size() == 6);
  CHECK(data.head.size() + data.held_out.size() == 18);
  CHECK(data.mean.at(0) == Approx(102.5 / 255).margin(1e-6));
  const Models models = make_models(s, data);
  const auto engine = make_engine(s, data, models, {}, {});
  engine->step();
  CHECK(std::isfinite(engine->loss("masker")));

  s.run.method = "blo-mae";
  CHECK_THAT(refusal(s), Contains("data.unlabelled") && Contains("blo-mae"));
  s.run.method = "mlo-mae";
  s.data.unlabelled = p.elsewhere("nowhere").string();
  CHECK_THAT(refusal(s), Contains("data.unlabelled") && Contains("no such folder"));
}

TEST_CASE("An image of another size is resized where the size is given, and else named at once",
          "[data]") {
  Pictures p;
  for (const char* name : {"cats", "dogs"}) p.fill(name, 10);
  Settings s = settings_for(p.path());
  CHECK(open_dataset(s).image_size == 8);  // as all of them are
  p.put("dogs/odd.png", 12, 9);
  CHECK_THAT(refusal(s), Contains("odd.png' is 12 × 9 pixels") &&
                             Contains("cats/0.png' is 8 × 8") && Contains("model.image_size"));
  s.model.image_size = 8;
  const Dataset data = open_dataset(s);
  CHECK_THAT(notices(data),
             Contains("1 image is not of the network's size") && Contains("odd.png"));
  std::vector<int64_t> rows(static_cast<std::size_t>(data.train->size()));
  std::iota(rows.begin(), rows.end(), 0);
  CHECK(mlo::image_batch(*data.train, rows, 0, data.train->size(), data.augmented(s))[0].size(2) ==
        8);

  write_bytes(p.path("cats/broken.jpg"), "\xFF\xD8\xFF");
  CHECK_THAT(refusal(s), Contains("broken.jpg") && Contains("data.on_bad_image = skip"));
  s.data.on_bad_image = "skip";
  CHECK_THAT(notices(open_dataset(s)),
             Contains("left out: ") && Contains("broken.jpg: is no whole JPEG"));
}

TEST_CASE("A fingerprint is the data's: not of where they are, and of all that is in them",
          "[data]") {
  Pictures p;
  for (const char* name : {"cats", "dogs"}) p.fill(name, 10);
  const auto print = [](const fs::path& folder) {
    return open_dataset(settings_for(folder)).fingerprint();
  };
  const std::string before = print(p.path());
  CHECK(before.size() == 16);
  CHECK(print(p.path()) == before);
  fs::copy(p.path(), p.elsewhere("copy"), fs::copy_options::recursive);
  CHECK(print(p.elsewhere("copy")) == before);

  const auto changed = [&](auto change) {
    fs::remove_all(p.elsewhere("copy"));
    fs::copy(p.path(), p.elsewhere("copy"), fs::copy_options::recursive);
    change(p.elsewhere("copy"));
    return print(p.elsewhere("copy"));
  };
  CHECK(changed([](const fs::path& f) { fs::rename(f / "cats/3.png", f / "cats/33.png"); }) !=
        before);
  CHECK(changed([](const fs::path& f) { fs::rename(f / "cats/3.png", f / "dogs/x.png"); }) !=
        before);
  CHECK(changed([](const fs::path& f) { fs::remove(f / "cats/3.png"); }) != before);
  CHECK(changed([](const fs::path& f) { fs::rename(f / "dogs", f / "wolves"); }) != before);
  CHECK(changed([](const fs::path& f) {
          fs::copy_file(f / "cats/3.png", f / "cats/4.png", fs::copy_options::overwrite_existing);
        }) != before);
  Settings s = settings_for(p.path());
  s.data.split_seed = 1;
  CHECK(open_dataset(s).fingerprint() != before);
}

TEST_CASE("More memory than there is is refused before anything is built, by what takes the most",
          "[data]") {
  Pictures p;
  for (const char* name : {"cats", "dogs"}) p.fill(name, 10);
  const Settings s = settings_for(p.path());
  const Dataset data = open_dataset(s);
  CHECK_NOTHROW(check_memory(s, data));
  CHECK(machine_bytes() > 1e8);
  const auto message = [&](auto change) {
    Settings changed = s;
    change(changed);
    return message_of<mlo::ConfigError>([&] { check_memory(changed, data, 1e10); });
  };
  CHECK_THAT(message([](Settings& c) { c.model.depth = 1000000000; }),
             Contains("model.depth") && Contains("9.3 GiB"));
  CHECK_THAT(message([](Settings& c) { c.model.dim = int64_t{1} << 60; }), Contains("model.dim"));
  CHECK_THAT(message([](Settings& c) { c.masker.hidden = int64_t{1} << 60; }),
             Contains("masker.hidden"));
  CHECK_THAT(message([](Settings& c) { c.head.batch = 100000000; }), Contains("head.batch"));
  CHECK_THAT(message([](Settings& c) { c.data.prefetch = int64_t{1} << 60; }),
             Contains("data.prefetch"));
  // The bound is honest: what a small run is said to need is less than what it takes.
  CHECK(message([](Settings&) {}).empty());
}

TEST_CASE("Odd folders are refused in words", "[data]") {
  const TemporaryFolder folder;
  CHECK_THAT(refusal(settings_for(folder / "nowhere")), Contains("no such folder"));
  write_bytes(folder / "file", "x");
  CHECK_THAT(refusal(settings_for(folder / "file")), Contains("is a file, not a folder"));
  fs::create_directory_symlink("circle", folder / "circle");
  CHECK_THAT(refusal(settings_for(folder / "circle")), Contains("no such folder"));
  fs::create_directories(folder / "empty");
  CHECK_THAT(refusal(settings_for(folder / "empty", "mae")), Contains("holds no image"));
  write_bytes(folder / "empty/a.heic", "x");
  CHECK_THAT(refusal(settings_for(folder / "empty", "mae")),
             Contains("1 .heic") && Contains("convert"));
}
