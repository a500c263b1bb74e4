// Sets of objects on grounds: the bytes, the maps, what the grounds are, and what is refused.
#include "mlomae/data/make_data.h"
#include "mlomae/data/grounds.h"
#include "mlomae/data/image_writer.h"

#include "mlomae/config/presets.h"
#include "mlomae/data/dataset.h"

#include "io/files.h"

#include <mlo/data/idx.h>
#include <mlo/data/image_file.h>
#include <mlo/error.h>
#include <torch/types.h>
#include <torch/utils.h>
#include <nlohmann/json.hpp>

#include <array>
#include <cmath>
#include <map>
#include <set>

#include "catch.h"

using Catch::Matchers::Contains;
using namespace mlomae;

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int64_t kSide = 8, kClasses = 3;

// Black, and a rectangle that says which class and row it is.
at::Tensor object(int64_t channels, int64_t row) {
  at::Tensor image = torch::zeros({channels, kSide, kSide}, at::kByte);
  image.narrow(1, 2, 4).narrow(2, 1, 3 + row % kClasses).fill_(100 + row);
  return image;
}

// Objects in two parts, grey ones as IDX files and others as folders; and photographs, of which the
// last alone is white.
class Given {
 public:
  explicit Given(int64_t channels = 1) {
    for (const char* part : {"train", "test"}) {
      const int64_t count = part == std::string("train") ? 12 : 6;
      const auto writer = channels == 1
                              ? idx_writer(made("objects"), part, count, kSide)
                              : folder_writer(made("written"), part, {"cup", "hat", "shoe"});
      for (int64_t row = 0; row < count; ++row)
        writer->add(object(channels, row), object(1, row), row % kClasses, row);
      writer->close();
    }
    if (channels == 3) fs::rename(folder_ / "written/images", folder_ / "objects");
    for (int i = 0; i < 5; ++i)
      mlo::write_png(made("photographs") / (std::to_string(i) + ".png"),
                     torch::full({3, 30 + i, 50}, i < 4 ? 10 * i : 255, at::kByte));
  }
  fs::path operator/(const std::string& name) const { return folder_ / name; }
  fs::path made(const std::string& name) const {
    fs::create_directories(folder_ / name);
    return folder_ / name;
  }
  ObjectOnGround asked(const std::string& out, const std::string& ground = "noise") const {
    ObjectOnGround asked;
    asked.objects = folder_ / "objects";
    asked.ground = ground;
    if (ground == "photographs") asked.photographs = folder_ / "photographs";
    asked.out = folder_ / out;
    asked.size = 20, asked.object = kSide;
    return asked;
  }

 private:
  TemporaryFolder folder_;
};

Json make(const ObjectOnGround& asked) { return make_data(asked, Json::object(), {}); }

std::string refusal(const ObjectOnGround& asked) {
  return message_of<mlo::Error>([&] { make(asked); });
}

// All files beneath a folder, by their places in it.
std::map<std::string, std::string> content(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file())
      files[fs::relative(entry.path(), folder).string()] = read_bytes(entry.path());
  return files;
}

// The rectangle that holds all that is not zero: top, left, height, width.
std::array<int64_t, 4> bounds(const at::Tensor& map) {
  const at::Tensor places = map.nonzero();
  const at::Tensor least = std::get<0>(places.min(0)), most = std::get<0>(places.max(0));
  const auto number = [](const at::Tensor& t, int64_t i) { return t[i].item<int64_t>(); };
  return {number(least, 0), number(least, 1), number(most, 0) - number(least, 0) + 1,
          number(most, 1) - number(least, 1) + 1};
}

Settings plain_settings(const fs::path& folder) {
  Settings s = preset("micro");
  s.data.path = folder.string();
  s.run.method = "mae";
  s.run.reconstruction_steps = 1;
  s.pretrain.batch = 2;
  return s;
}

// The slope of log amplitude over log frequency, below that of the pixels' diagonal.
double slope(const at::Tensor& images) {
  const int64_t size = images.size(2);
  const at::Tensor power =
      at::fft_fft2(images.to(at::kDouble)).abs().square().mean(at::IntArrayRef{0, 1});
  double n = 0.0, x = 0.0, y = 0.0, xx = 0.0, xy = 0.0;
  for (int64_t v = 0; v <= size / 2; ++v)
    for (int64_t u = v == 0 ? 1 : 0; u <= size / 2; ++u) {
      const double f = 0.5 * std::log(static_cast<double>(u * u + v * v)),
                   a = 0.5 * std::log(power[v][u].item<double>());
      n += 1, x += f, y += a, xx += f * f, xy += f * a;
    }
  return (xy - x * y / n) / (xx - x * x / n);
}

at::Tensor drawn(const Ground& ground, uint64_t count) {
  std::vector<at::Tensor> images;
  for (uint64_t key = 0; key < count; ++key) {
    Draws draws(key);
    images.push_back(ground(draws));
  }
  return torch::stack(images);
}

}  // namespace

TEST_CASE("The same call writes the same bytes, and another seed others", "[make_data]") {
  const auto ground = GENERATE(from_range(grounds()));
  const int64_t channels = GENERATE(int64_t{1}, int64_t{3});
  const Given given(channels);
  at::set_num_threads(2);
  const Json first = make(given.asked("one", ground));
  at::set_num_threads(1);
  CHECK(make(given.asked("two", ground)) == first);
  CHECK(content(given / "one") == content(given / "two"));
  ObjectOnGround other = given.asked("three", ground);
  other.seed = 1;
  CHECK(make(other)["digest"] != first["digest"]);
}

TEST_CASE("The map is where the object is, and the object is where the map is", "[make_data]") {
  const Given given;
  ObjectOnGround asked = given.asked("box");
  asked.train = 9;
  make(asked);
  asked.cut = "shape", asked.out = given / "shape";
  make(asked);
  const auto read = [&](const std::string& set, const std::string& what) {
    return mlo::read_idx(given / (set + "/train-" + what + "-ubyte"));
  };
  const at::Tensor images = read("box", "images-idx3"), maps = read("box", "maps-idx3"),
                   labels = read("box", "labels-idx1"), shapes = read("shape", "maps-idx3"),
                   on_shape = read("shape", "images-idx3");
  REQUIRE(maps.sizes() == images.sizes());
  REQUIRE(images.size(0) == 9);
  std::set<std::array<int64_t, 4>> places;
  for (int64_t i = 0; i < 9; ++i) {
    const auto place = bounds(maps[i]);
    places.insert(place);
    const auto inside = [&, top = place[0], left = place[1]](const at::Tensor& t) {
      return t[i].narrow(0, top, kSide).narrow(1, left, kSide);
    };
    CHECK((place[2] == kSide && place[3] == kSide));
    CHECK(inside(maps).eq(255).all().item<bool>());
    // Which object it is, by its brightest pixel: of the class that the label says.
    const int64_t row = inside(images).max().item<int64_t>() - 100;
    CHECK(row % kClasses == labels[i].item<int64_t>());
    CHECK(inside(images).equal(object(1, row)[0]));
    CHECK(inside(shapes).eq(255).equal(object(1, row)[0].ge(16)));
    CHECK(shapes[i].ne(0).sum().item<int64_t>() == object(1, row).ne(0).sum().item<int64_t>());
    // The same place on the same ground, of which more is seen.
    CHECK(on_shape[i].ne(images[i]).logical_and(shapes[i].ne(0)).sum().item<int64_t>() == 0);
    CHECK(on_shape[i].ne(images[i]).logical_and(maps[i].eq(0)).sum().item<int64_t>() == 0);
    CHECK(!on_shape[i].equal(images[i]));
  }
  CHECK(places.size() > 6);
}

TEST_CASE("Each class has as many images, and fewer are a part of more", "[make_data]") {
  const Given given(3);
  ObjectOnGround asked = given.asked("few");
  asked.train = 6, asked.test = 3;
  make(asked);
  asked.out = given / "more", asked.train = 9;
  const Json record = make(asked);
  CHECK((record["train"] == 9 && record["test"] == 3));
  const auto few = content(given / "few"), more = content(given / "more");
  std::map<std::string, int> of_class;
  for (const auto& [file, bytes] : few) {
    if (file == "make-data.json") continue;
    ++of_class[fs::path(file).parent_path().string()];
    REQUIRE(more.count(file) == 1);
    CHECK(more.at(file) == bytes);
  }
  for (const char* name : {"cup", "hat", "shoe"})
    for (const char* what : {"images/", "maps/"}) {
      CHECK(of_class[what + std::string("train/") + name] == 2);
      CHECK(of_class[what + std::string("test/") + name] == 1);
    }
}

TEST_CASE("What is written is opened as a data set", "[make_data]") {
  const int64_t channels = GENERATE(int64_t{1}, int64_t{3});
  const Given given(channels);
  const Json record = make(given.asked("set/", "clutter"));
  const Dataset data = open_dataset(plain_settings(given / (channels == 1 ? "set" : "set/images")));
  CHECK((data.train->size() == 12 && data.test->size() == 6 && data.image_size == 20));
  CHECK(data.train->classes() == record["class_names"].get<std::vector<std::string>>());
  CHECK(data.train->channels() == channels);
  CHECK(Json::parse(read_bytes(given / "set/make-data.json")) == record);
  CHECK(!fs::exists(given / "set.part"));
  if (channels == 1) return;
  const at::Tensor map = mlo::read_image(given / "set/maps/train/hat/000004.png", 1),
                   image = mlo::read_image(given / "set/images/train/hat/000004.png");
  CHECK(map.ne(0).sum().item<int64_t>() == kSide * kSide);
  const auto place = bounds(map[0]);
  // The rows of a folder are in the order of its classes: the fourth is the first hat.
  CHECK(image.narrow(1, place[0], kSide).narrow(2, place[1], kSide).equal(object(3, 1)));
}

TEST_CASE("Noise has an amplitude of 1/f, its mean and its deviation", "[make_data]") {
  const int64_t size = GENERATE(int64_t{40}, int64_t{41});
  const at::Tensor images = drawn(noise_ground(3, size), 40);
  CHECK(slope(images) == Approx(-1.0).margin(0.06));
  CHECK(images.to(at::kDouble).mean().item<double>() == Approx(128.0).margin(1.0));
  const at::Tensor deviation = images.to(at::kDouble).flatten(2).std(2);
  CHECK(deviation.min().item<double>() > 46.0);
  CHECK(deviation.max().item<double>() < 51.0);
  CHECK(!images[0][0].equal(images[0][1]));
  // The control: white noise has no slope.
  CHECK(std::abs(slope(torch::randint(0, 256, {40, 1, size, size}))) < 0.1);
}

TEST_CASE("Stripes are of one wavelength, and noise", "[make_data]") {
  const int64_t size = 40;
  const at::Tensor images = drawn(stripes_ground(1, size), 40).to(at::kDouble);
  CHECK(images.mean().item<double>() == Approx(128.0).margin(2.0));
  const at::Tensor power =
      at::fft_fft2(images - images.mean(at::IntArrayRef{2, 3}, true)).abs().square().select(1, 0);
  std::set<int64_t> peaks;
  for (int64_t i = 0; i < power.size(0); ++i) {
    const int64_t peak = power[i].argmax().item<int64_t>(),
                  v = std::min(peak / size, size - peak / size),
                  u = std::min(peak % size, size - peak % size);
    const double wavelength = static_cast<double>(size) / std::hypot(u, v);
    CHECK((wavelength > 2.7 && wavelength < 14.0));
    peaks.insert(peak);
    // It and its neighbours hold most of the power; but not all.
    const double part =
        (std::get<0>(power[i].flatten().topk(18)).sum() / power[i].sum()).item<double>();
    CHECK((part > 0.45 && part < 0.995));
  }
  CHECK(peaks.size() > 20);
}

TEST_CASE("Clutter covers all, with pieces of objects and no whole one", "[make_data]") {
  std::vector<at::Tensor> objects;
  for (int64_t i = 0; i < 200; ++i) objects.push_back(torch::full({1, 9, 9}, 50 + i, at::kByte));
  const at::Tensor images = drawn(clutter_ground(objects, 33), 20).select(1, 0);
  CHECK(images.ge(50).logical_and(images.lt(250)).all().item<bool>());
  const at::Tensor windows = images.unfold(1, 9, 1).unfold(2, 9, 1).flatten(3);
  CHECK(std::get<0>(windows.max(3)).ne(std::get<0>(windows.min(3))).all().item<bool>());
  // Pieces of four pixels, the last of which lie on top: many objects an image, everywhere.
  for (int64_t i = 0; i < images.size(0); ++i)
    CHECK(std::get<0>(at::_unique(images[i])).size(0) > 40);
}

TEST_CASE("Photographs are divided between the parts", "[make_data]") {
  const Given given;
  make(given.asked("set", "photographs"));
  for (const auto& [part, least, most] : {std::tuple{"train", 0, 30}, {"t10k", 255, 255}}) {
    const at::Tensor images =
                         mlo::read_idx(given / ("set/" + std::string(part) + "-images-idx3-ubyte")),
                     maps =
                         mlo::read_idx(given / ("set/" + std::string(part) + "-maps-idx3-ubyte"));
    const at::Tensor ground = images.masked_select(maps.eq(0));
    CHECK(ground.min().item<int64_t>() == least);
    CHECK(ground.max().item<int64_t>() == most);
  }
  // A part of one photograph: at a random place and scale, of the image's size.
  const at::Tensor ramp =
      torch::arange(100, at::kByte).view({1, 1, 100}).expand({1, 60, 100}).contiguous();
  const at::Tensor parts = drawn(photograph_ground({ramp}, 20), 60).to(at::kDouble);
  const at::Tensor width = parts.select(3, 19).select(2, 9) - parts.select(3, 0).select(2, 9);
  CHECK(width.min().item<double>() < 23.0);
  CHECK(width.max().item<double>() > 50.0);
  CHECK(parts.min().item<double>() < 5.0);
  CHECK(parts.max().item<double>() > 90.0);
  // One that is smaller than the image is enlarged.
  CHECK(drawn(photograph_ground({ramp}, 80), 1).size(3) == 80);
}

TEST_CASE("What cannot be made is refused with the cure, and leaves nothing", "[make_data]") {
  const Given given;
  const auto with = [&](const std::function<void(ObjectOnGround&)>& change) {
    ObjectOnGround asked = given.asked("bad");
    change(asked);
    return refusal(asked);
  };
  CHECK_THAT(with([](auto& a) { a.object = 21; }), Contains("--object = 21") && Contains("20"));
  CHECK_THAT(with([](auto& a) { a.object = 3; }), Contains("--object = 3; it must be from 4"));
  CHECK_THAT(with([](auto& a) { a.size = 5000; }), Contains("--size = 5000"));
  CHECK_THAT(with([](auto& a) { a.train = 13; }), Contains("--train = 13") && Contains("12"));
  CHECK_THAT(with([](auto& a) { a.test = 2; }), Contains("--test = 2") && Contains("each class"));
  CHECK_THAT(with([](auto& a) { a.train = -1; }), Contains("--train = -1"));
  CHECK_THAT(with([](auto& a) { a.ground = "grass"; }), Contains("'noise', 'stripes'"));
  CHECK_THAT(with([](auto& a) { a.cut = "round"; }), Contains("--cut = round"));
  CHECK_THAT(with([](auto& a) { a.ground = "photographs"; }),
             Contains("Give --photographs FOLDER"));
  CHECK_THAT(with([&](auto& a) { a.photographs = given / "photographs"; }),
             Contains("is for --ground photographs, and --ground = noise"));
  CHECK_THAT(with([&](auto& a) { a.ground = "photographs", a.photographs = given.made("empty"); }),
             Contains("five JPEG or PNG files") && Contains("there are 0"));
  CHECK_THAT(with([&](auto& a) { a.objects = given / "nowhere"; }),
             Contains("nowhere; it must be a folder that is there"));
  CHECK_THAT(with([&](auto& a) { a.objects = given / "photographs"; }),
             Contains("--objects") && Contains("labels"));
  CHECK_THAT(with([&](auto& a) { a.out = given / "objects"; }), Contains("or empty: give another"));
  CHECK_THAT(with([](auto& a) { a.out = ""; }), Contains("--out"));
  for (const char* what : {"images-idx3-ubyte", "labels-idx1-ubyte"})
    fs::rename(given / ("objects/test-" + std::string(what)), given / what);
  CHECK_THAT(refusal(given.asked("bad")), Contains("must have a test part") && Contains("test"));
  for (const char* what : {"images-idx3-ubyte", "labels-idx1-ubyte"})
    fs::rename(given / what, given / ("objects/test-" + std::string(what)));
  given.made("bad.part");
  CHECK_THAT(refusal(given.asked("bad")), Contains("bad.part is there") && Contains("remove it"));
  CHECK(fs::remove(given / "bad.part"));
  CHECK(!fs::exists(given / "bad"));
  given.made("empty-out");
  fs::create_directory_symlink(given / "empty-out", given / "link");
  make(given.asked("link"));
  CHECK(fs::exists(given / "empty-out/make-data.json"));
}

TEST_CASE("A black object has no shape, and what was written of its set goes", "[make_data]") {
  const TemporaryFolder folder;
  for (const char* part : {"train", "test"}) {
    const auto writer = idx_writer(folder / "", part, 4, kSide);
    for (int64_t row = 0; row < 4; ++row)
      writer->add(object(1, row) * (row == 3 ? 0 : 1), object(1, row), row % 2, row);
    writer->close();
  }
  ObjectOnGround asked;
  asked.objects = folder / "", asked.out = folder / "out", asked.cut = "shape";
  asked.size = 20, asked.object = kSide;
  CHECK_THAT(refusal(asked), Contains("object 3 of the train part") && Contains("--cut box"));
  CHECK((!fs::exists(folder / "out") && !fs::exists(folder / "out.part")));
  asked.cut = "box";
  make(asked);
}
