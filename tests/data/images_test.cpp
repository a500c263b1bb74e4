#include "io/files.h"

#include <mlo/data/augment.h>
#include <mlo/data/image_files.h>
#include <mlo/data/images.h>
#include <mlo/error.h>

#include <ATen/ATen.h>
#include <torch/types.h>

#include <array>
#include <random>
#include <sstream>

#include <sys/stat.h>

#include "catch.h"

namespace {

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

at::Tensor planes(const std::string& bytes, int64_t height, int64_t width, int64_t channels) {
  return torch::from_blob(const_cast<char*>(bytes.data()), {height, width, channels}, at::kByte)
      .permute({2, 0, 1})
      .clone();
}

struct Fixture {
  std::string name, file;
  at::Tensor colour, grey;
};

std::vector<Fixture> fixtures(const std::string& list = "images.hex") {
  std::vector<Fixture> all;
  std::ifstream in(MLO_TEST_DATA "/" + list);
  std::string name, file, colour, grey;
  int64_t h = 0, w = 0;
  while (in >> name >> h >> w >> file >> colour >> grey)
    all.push_back(
        {name, from_hex(file), planes(from_hex(colour), h, w, 3), planes(from_hex(grey), h, w, 1)});
  REQUIRE(all.size() == (list == "images.hex" ? 11 : 9));
  return all;
}

std::string record(const std::vector<int>& labels, int seed) {
  std::string bytes;
  for (const int label : labels) bytes += static_cast<char>(label);
  for (int i = 0; i < 3072; ++i) bytes += static_cast<char>((i * 7 + seed) % 251);
  return bytes;
}

at::Tensor noise(int64_t channels, int64_t height, int64_t width) {
  return torch::randint(0, 256, {channels, height, width}, at::kByte);
}

template <class Call>
std::string refusal(Call&& call) {
  return message_of<mlo::Error>(call);
}

}  // namespace

TEST_CASE("JPEG and PNG files of every kind are read as PIL reads them", "[images]") {
  const TemporaryFolder folder;
  for (const Fixture& f : fixtures()) {
    INFO(f.name);
    const auto file = folder / f.name;
    write_bytes(file, f.file);
    // Decoders of JPEG may round differently; grey and back through CMYK adds to it.
    const mlo::ImageSize size = mlo::image_size(file);
    CHECK((size.width == f.colour.size(2) && size.height == f.colour.size(1)));
    const int64_t tolerance = f.name.starts_with("cmyk") ? 3 : f.name.ends_with(".jpg") ? 2 : 0;
    for (const int64_t channels : {3, 1}) {
      const at::Tensor image = mlo::read_image(file, channels),
                       expected = channels == 3 ? f.colour : f.grey;
      REQUIRE(image.sizes() == expected.sizes());
      CHECK((image.to(at::kInt) - expected.to(at::kInt)).abs().max().item<int64_t>() <= tolerance);
    }
  }
}

TEST_CASE("An image's size is read from its header, and files are known by their names",
          "[images]") {
  const TemporaryFolder folder;
  std::vector<uint8_t> bytes = mlo::encode_png(noise(3, 40, 70));
  bytes.resize(40);  // no pixels left
  write_bytes(folder / "cut.png", std::string(bytes.begin(), bytes.end()));
  CHECK(mlo::image_size(folder / "cut.png") == mlo::ImageSize{.width = 70, .height = 40});
  // A thumbnail in a segment before the frame is not the image.
  const std::string thumbnail("\xFF\xD8\xFF\xC0\0\x0B\x08\0\x05\0\x05\x01\x01\x11\0", 15);
  const auto head = std::string("\xFF\xD8\xFF\xE1\0\x11", 6) + thumbnail;
  write_bytes(folder / "cut.jpg",
              head + std::string("\xFF\xC2\0\x0B\x08\x01\x02\x03\x04\x01\x01\x11\0", 13));
  CHECK(mlo::image_size(folder / "cut.jpg") == mlo::ImageSize{.width = 0x304, .height = 0x102});
  for (const char* name : {"a.jpg", "a.JPEG", "a.jpe", "a.jfif", "a.b.PNG"})
    CHECK(mlo::named_as_image(name));
  for (const char* name : {"a.webp", "jpg", ".png", "a.jpg.txt", ""})
    CHECK_FALSE(mlo::named_as_image(name));
  CHECK_THROWS_WITH(mlo::file_images({"a.png"}, {1}, {"one"}), Contains("label 1"));
  CHECK_THROWS_WITH(mlo::file_images({"a.png"}, {}, {"one"}), Contains("0 labels for 1 files"));
  CHECK(mlo::file_images({folder / "cut.png"}, {0}, {"one"}, 1)->channels() == 1);
}

TEST_CASE("An EXIF orientation is left alone, or followed as PIL follows it", "[images]") {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "set/class");
  for (const Fixture& f : fixtures("upright.hex")) {
    INFO(f.name);
    const auto file = folder / ("set/class/" + f.name);
    write_bytes(file, f.file);
    const int64_t tolerance = f.name.ends_with(".jpg") ? 2 : 0;
    const at::Tensor image = mlo::read_image(file, 3, mlo::Orientation::upright);
    REQUIRE(image.sizes() == f.colour.sizes());
    CHECK((image.to(at::kInt) - f.colour.to(at::kInt)).abs().max().item<int64_t>() <= tolerance);
    CHECK(mlo::read_image(file).sizes() == at::IntArrayRef({3, 8, 12}));
  }
  CHECK(mlo::folder_images(folder / "set")->image(4).size(1) == 8);  // "5.png"
  CHECK(mlo::folder_images(folder / "set", {.orientation = mlo::Orientation::upright})
            ->image(4)
            .size(1) == 12);
}

TEST_CASE("A PNG that was written is read back to the bit", "[images]") {
  const TemporaryFolder folder;
  for (const int64_t channels : {1, 3}) {
    const at::Tensor image = noise(channels, 5, 9);
    mlo::write_png(folder / "a.png", image);
    CHECK(at::equal(mlo::read_image(folder / "a.png", channels), image));
  }
  CHECK_THROWS_AS(mlo::write_png(folder / "b.png", torch::zeros({3, 2, 2})), mlo::Error);
  CHECK_THROWS_AS(mlo::encode_png(torch::zeros({2, 2, 2}, at::kByte)), mlo::Error);
}

TEST_CASE("What is no image is named, and no damage ends the process", "[images]") {
  const TemporaryFolder folder;
  const auto file = folder / "bad.jpg";
  write_bytes(file, "");
  CHECK_THAT(refusal([&] { mlo::read_image(file); }),
             Contains(file.string()) && Contains("is empty"));
  write_bytes(file, "GIF89a");
  CHECK_THAT(refusal([&] { mlo::read_image(file); }), Contains("neither JPEG nor PNG"));
  CHECK_THAT(refusal([&] { mlo::read_image(folder / "none.png"); }), Contains("cannot be opened"));
  CHECK_THROWS_AS(mlo::read_image(file, 2), mlo::ConfigError);
  CHECK_THAT(refusal([&] { mlo::image_size(file); }),
             Contains(file.string()) && Contains("neither JPEG nor PNG"));
  CHECK_THAT(refusal([&] { mlo::image_size(folder / "none.png"); }), Contains("cannot be opened"));
  REQUIRE(::mkfifo((folder / "pipe.png").c_str(), 0600) == 0);
  CHECK_THAT(refusal([&] { mlo::image_size(folder / "pipe.png"); }), Contains("no regular file"));

  std::mt19937_64 random(7);
  int refused = 0, read = 0;
  for (const Fixture& f : fixtures()) {
    INFO(f.name);
    // Cut short: PNG must lose its last chunk, JPEG some of its scan.
    write_bytes(file, f.file.substr(0, f.file.size() * 3 / 4));
    CHECK_THAT(refusal([&] { mlo::read_image(file); }),
               Contains(file.string()) && Contains("is no whole"));
    for (int i = 0; i < 300; ++i) {
      std::string damaged = f.file;
      for (uint64_t changes = 1 + random() % 4; changes > 0; --changes)
        damaged[random() % damaged.size()] = static_cast<char>(random());
      if (random() % 4 == 0) damaged.resize(random() % damaged.size());
      write_bytes(file, damaged);
      try {
        mlo::read_image(file);
        ++read;
      } catch (const mlo::Error&) {
        ++refused;
      }
    }
  }
  CHECK(refused > 1000);  // else the damage was none
  CHECK(read > 10);
}

TEST_CASE("CIFAR's binary files are read by record", "[images]") {
  const TemporaryFolder folder;
  const std::filesystem::path set = (folder / "test_batch.bin").parent_path();
  write_bytes(folder / "data_batch_1.bin", record({3}, 1) + record({9}, 2));
  write_bytes(folder / "data_batch_2.bin", record({0}, 3));
  write_bytes(folder / "test_batch.bin", record({1}, 4));
  const auto train = mlo::cifar10_images(set, true);
  CHECK(train->size() == 3);
  CHECK(train->channels() == 3);
  CHECK(train->classes().size() == 10);
  CHECK(train->label(1) == 9);
  CHECK(train->image(2).sizes() == at::IntArrayRef({3, 32, 32}));
  CHECK(train->image(2)[1][2][5].item<int>() == ((1024 + 2 * 32 + 5) * 7 + 3) % 251);
  CHECK(mlo::cifar10_images(set, false)->label(0) == 1);

  write_bytes(folder / "train.bin", record({4, 77}, 1));
  CHECK(mlo::cifar100_images(set, true)->label(0) == 77);
  CHECK(mlo::cifar100_images(set, true, true)->label(0) == 4);

  const auto file = (folder / "data_batch_2.bin").string();
  write_bytes(file, record({0}, 3).substr(0, 3000));
  CHECK_THAT(refusal([&] { mlo::cifar10_images(set, true); }),
             Contains(file) && Contains("3000 bytes") && Contains("3073"));
  write_bytes(file, record({10}, 3));
  CHECK_THAT(refusal([&] { mlo::cifar10_images(set, true); }),
             Contains(file) && Contains("label 10") && Contains("0 to 9"));
  write_bytes(folder / "train.bin", record({20, 5}, 1));
  CHECK_NOTHROW(mlo::cifar100_images(set, true));
  CHECK_THAT(refusal([&] { mlo::cifar100_images(set, true, true); }), Contains("label 20"));
  CHECK_THAT(refusal([&] { mlo::cifar100_images(set, false); }),
             Contains("test.bin") && Contains("cannot be opened"));
  write_bytes(folder / "batches.meta.txt", "airplane\ncar\n");
  CHECK_THAT(refusal([&] { mlo::cifar10_images(set, false); }),
             Contains("batches.meta.txt") && Contains("names 2"));
}

TEST_CASE("A pair of IDX files belongs together", "[images]") {
  const TemporaryFolder folder;
  const auto idx = [](const std::vector<uint8_t>& shape, std::size_t values) {
    std::string bytes = {0, 0, 8, static_cast<char>(shape.size())};
    for (const uint8_t n : shape) bytes += std::string("\0\0\0", 3) + static_cast<char>(n);
    return bytes + std::string(values, '\1');
  };
  write_bytes(folder / "images", idx({2, 3, 4}, 24));
  write_bytes(folder / "labels", idx({2}, 2));
  const auto set = mlo::idx_images(folder / "images", folder / "labels");
  CHECK(set->size() == 2);
  CHECK(set->image(1).sizes() == at::IntArrayRef({1, 3, 4}));
  CHECK(set->label(0) == 1);
  write_bytes(folder / "labels", idx({3}, 3));
  CHECK_THAT(refusal([&] { mlo::idx_images(folder / "images", folder / "labels"); }),
             Contains("3 labels, expected 2"));
  CHECK_THAT(refusal([&] { mlo::idx_images(folder / "labels", folder / "labels"); }),
             Contains("holds no images"));
}

TEST_CASE("A folder of classes is a set, and says what is wrong with it", "[images]") {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "set/dogs");
  std::filesystem::create_directories(folder / "set/cats");
  std::filesystem::create_directories(folder / "set/.cache");
  const at::Tensor image = noise(3, 6, 6);
  mlo::write_png(folder / "set/dogs/2.png", image);
  mlo::write_png(folder / "set/dogs/1.PNG", noise(1, 4, 4));
  mlo::write_png(folder / "set/cats/a.png", noise(3, 5, 7));
  write_bytes(folder / "set/cats/readme.txt", "no image");
  const auto set = mlo::folder_images(folder / "set");
  CHECK(set->classes() == std::vector<std::string>{"cats", "dogs"});
  REQUIRE(set->size() == 3);
  CHECK(set->label(0) == 0);
  CHECK(at::equal(set->image(2), image));
  CHECK(set->image(1).size(0) == 3);

  write_bytes(folder / "set/dogs/3.jpg", "\xFF\xD8\xFF broken");
  CHECK_THAT(refusal([&] { mlo::folder_images(folder / "set")->image(3); }),
             Contains("3.jpg") && Contains("no whole JPEG"));
  std::vector<std::string> skipped;
  const auto rest = mlo::folder_images(
      folder / "set",
      {.on_bad_image = [&](const std::string& message) { skipped.push_back(message); }});
  CHECK(rest->size() == 3);
  REQUIRE(skipped.size() == 1);
  CHECK_THAT(skipped[0], Contains("3.jpg"));

  std::filesystem::create_directories(folder / "set/empty");
  CHECK_THAT(refusal([&] { mlo::folder_images(folder / "set"); }),
             Contains("empty") && Contains("class without"));
  CHECK_THAT(refusal([&] { mlo::folder_images(folder / "set/dogs"); }),
             Contains("one folder a class"));
  CHECK_THAT(refusal([&] { mlo::folder_images(folder / "nowhere"); }), Contains("nowhere"));
}

TEST_CASE("A PNG whose chunk announces more than the file has is refused", "[images][bounds]") {
  std::vector<uint8_t> bytes = mlo::encode_png(noise(3, 4, 4));
  const std::vector<uint8_t> chunk = {0x6f, 0,   0,   0x30, 'e', 'X',
                                      'I',  'f', 'M', 'M',  0,   42};  // 1.9 GB of them
  bytes.insert(bytes.begin() + 33, chunk.begin(), chunk.end());        // behind IHDR
  const TemporaryFolder folder;
  write_bytes(folder / "x.png", {bytes.begin(), bytes.end()});
  CHECK(message_of<mlo::Error>([&] { mlo::read_image(folder / "x.png"); }).find("ends too early") !=
        std::string::npos);
}

TEST_CASE("A split takes the same part of each class, by the seed", "[images]") {
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < 100; ++i) labels.push_back(i % 10 == 0 ? 1 : 0);  // 90 and 10
  const auto set =
      mlo::tensor_images(torch::zeros({100, 1, 2, 2}, at::kByte), torch::tensor(labels));
  const mlo::Split split = mlo::split_by_class(*set, 0.2, 5),
                   again = mlo::split_by_class(*set, 0.2, 5),
                   other = mlo::split_by_class(*set, 0.2, 6);
  CHECK(split.held_out.size() == 20);
  CHECK(std::count_if(split.held_out.begin(), split.held_out.end(), [&](int64_t row) {
          return labels[static_cast<std::size_t>(row)] == 1;
        }) == 2);
  CHECK(split.held_out == again.held_out);
  CHECK(split.held_out != other.held_out);
  std::vector<int64_t> all = split.train;
  all.insert(all.end(), split.held_out.begin(), split.held_out.end());
  std::sort(all.begin(), all.end());
  for (int64_t i = 0; i < 100; ++i) CHECK(all[static_cast<std::size_t>(i)] == i);
  CHECK_THROWS_AS(mlo::split_by_class(*set, 1.0, 5), mlo::ConfigError);

  // However small a class or a part is, both have an image of it; the only one of a class is for
  // training.
  const auto rare = mlo::tensor_images(torch::zeros({8, 1, 2, 2}, at::kByte),
                                       torch::tensor({0, 0, 0, 0, 0, 1, 1, 2}));
  for (const double part : {0.01, 0.2, 0.99}) {
    std::array<int, 3> train = {}, out = {};
    const mlo::Split parts = mlo::split_by_class(*rare, part, 5);
    for (const int64_t row : parts.train) ++train[static_cast<std::size_t>(rare->label(row))];
    for (const int64_t row : parts.held_out) ++out[static_cast<std::size_t>(rare->label(row))];
    CHECK(train == std::array<int, 3>{part == 0.99 ? 1 : 4, 1, 1});
    CHECK(out == std::array<int, 3>{part == 0.99 ? 4 : 1, 1, 0});
  }
  const auto single =
      mlo::tensor_images(torch::zeros({2, 1, 2, 2}, at::kByte), torch::tensor({0, 1}));
  CHECK_THROWS_WITH(mlo::split_by_class(*single, 0.5, 5), Contains("2 images of 2 classes"));
  CHECK_THROWS_WITH(
      mlo::tensor_images(torch::zeros({2, 1, 2, 2}, at::kByte), torch::tensor({0, 3}), {"a", "b"}),
      Contains("from 0 to 3"));
}

TEST_CASE("Bicubic resizing is PIL's, to the bit", "[augment]") {
  std::ifstream in(MLO_TEST_DATA "/bicubic.hex");
  int64_t h = 0, w = 0, oh = 0, ow = 0;
  std::string source, result;
  int cases = 0;
  for (; in >> h >> w >> oh >> ow >> source >> result; ++cases) {
    INFO(h << " x " << w << " to " << oh << " x " << ow);
    const at::Tensor image = planes(from_hex(source), h, w, 1);
    CHECK(at::equal(mlo::resize_bicubic(image, oh, ow), planes(from_hex(result), oh, ow, 1)));
  }
  CHECK(cases == 7);
}

TEST_CASE("Padded crops and flips move pixels and nothing else", "[augment]") {
  const at::Tensor image = noise(3, 8, 8);
  mlo::Augmentation a;
  a.size = 8;
  a.mean = {0.4, 0.5, 0.6};
  a.deviation = {0.2, 0.25, 0.3};
  const auto result = [&](uint64_t key) {
    at::Tensor out = torch::empty({3, 8, 8});
    mlo::augment(image, a, key, out.data_ptr<float>());
    return out;
  };
  const at::Tensor mean = torch::tensor({0.4, 0.5, 0.6}, at::kDouble).view({3, 1, 1}),
                   deviation = torch::tensor({0.2, 0.25, 0.3}, at::kDouble).view({3, 1, 1});
  const auto normalized = [&](const at::Tensor& pixels) {
    return ((pixels.to(at::kDouble) / 255 - mean) / deviation).to(at::kFloat);
  };
  CHECK(at::allclose(result(1), normalized(image), 1e-5, 1e-6));

  a.crop_padding = 2;
  a.flip = true;
  const at::Tensor padded = torch::constant_pad_nd(image, {2, 2, 2, 2});
  std::set<std::tuple<int64_t, int64_t, bool>> seen;
  for (uint64_t key = 0; key < 600; ++key) {
    const at::Tensor out = result(key);
    CHECK(at::equal(out, result(key)));
    int matches = 0;
    for (int64_t y = 0; y <= 4; ++y)
      for (int64_t x = 0; x <= 4; ++x)
        for (const bool flip : {false, true}) {
          const at::Tensor part = padded.narrow(1, y, 8).narrow(2, x, 8);
          if (at::allclose(out, normalized(flip ? part.flip(2) : part), 1e-5, 1e-6))
            ++matches, seen.insert({y, x, flip});
        }
    REQUIRE(matches == 1);
  }
  CHECK(seen.size() == 50);  // each of 5 x 5 places, both ways
  // An image of another size is fitted first.
  const at::Tensor other = noise(3, 16, 16), fitted = mlo::resize_bicubic(other, 8, 8);
  at::Tensor out = torch::empty({3, 8, 8}), expected = torch::empty({3, 8, 8});
  mlo::augment(other, a, 1, out.data_ptr<float>());
  mlo::augment(fitted, a, 1, expected.data_ptr<float>());
  CHECK(at::equal(out, expected));
}

TEST_CASE("Resized crops keep to area and ratio, others are fitted", "[augment]") {
  // An image whose red is the column and green the row tells where a crop came from.
  const at::Tensor position = torch::arange(0, 200, at::kByte);
  const at::Tensor image =
      torch::stack({position.expand({200, 200}), position.view({200, 1}).expand({200, 200}),
                    torch::zeros({200, 200}, at::kByte)})
          .contiguous();
  mlo::Augmentation a;
  a.size = 50;
  a.resized_crop.emplace();
  double least = 1.0, most = 0.0;
  for (uint64_t key = 0; key < 300; ++key) {
    at::Tensor out = torch::empty({3, 50, 50});
    mlo::augment(image, a, key, out.data_ptr<float>());
    const double width = (out[0][25][49] - out[0][25][0]).item<double>() * 255 * 50 / 49,
                 height = (out[1][49][25] - out[1][0][25]).item<double>() * 255 * 50 / 49;
    const double area = width * height / 40000, ratio = width / height;
    least = std::min(least, area);
    most = std::max(most, area);
    CHECK(area > 0.17);
    CHECK(area < 1.03);
    CHECK(ratio > 0.70);
    CHECK(ratio < 1.42);
  }
  CHECK(least < 0.25);
  CHECK(most > 0.85);

  a.resized_crop.reset();
  a.size = 20;
  at::Tensor out = torch::empty({3, 20, 20});
  mlo::augment(noise(3, 31, 57), a, 0, out.data_ptr<float>());
  mlo::augment(image, a, 0, out.data_ptr<float>());
  CHECK(at::allclose(out, mlo::resize_bicubic(image, 20, 20).to(at::kFloat) / 255, 1e-5, 1e-6));

  a.deviation = {0.0};
  CHECK_THROWS_WITH(a.validate(3), Contains("deviation"));
  a.deviation = {1.0, 1.0};
  CHECK_THROWS_WITH(a.validate(3), Contains("channels"));
}
