// Images made to take memory and time, and the cost of those that are only odd.
#include "data/resize.h"
#include "io/cost.h"
#include "io/files.h"

#include <mlo/data/augment.h>
#include <mlo/data/image_files.h>
#include <mlo/data/images.h>
#include <mlo/error.h>

#include <ATen/ATen.h>
#include <torch/types.h>

#include <zlib.h>

#include <random>

#include "catch.h"

namespace {

constexpr double kGigabyte = 1e9;

std::string big_endian(uint64_t bits, int width) {
  std::string bytes;
  for (int shift = 8 * (width - 1); shift >= 0; shift -= 8)
    bytes += static_cast<char>(bits >> shift);
  return bytes;
}

std::string chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  return big_endian(data.size(), 4) + body +
         big_endian(::crc32(0, reinterpret_cast<const Bytef*>(body.data()),
                            static_cast<uInt>(body.size())),
                    4);
}

std::string packed(const std::string& bytes) {
  uLongf size = ::compressBound(bytes.size());
  std::string out(size, '\0');
  REQUIRE(::compress(reinterpret_cast<Bytef*>(out.data()), &size,
                     reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()) == Z_OK);
  out.resize(size);
  return out;
}

// Black, of 8 bits grey.
std::string png(uint32_t width, uint32_t height, const std::string& between = "",
                const std::string& data = "") {
  return "\x89PNG\r\n\x1A\n" +
         chunk("IHDR",
               big_endian(width, 4) + big_endian(height, 4) + std::string("\x08\0\0\0\0", 5)) +
         between +
         chunk("IDAT",
               data.empty() ? packed(std::string(std::size_t{height} * (width + 1), '\0')) : data) +
         chunk("IEND", "");
}

std::string segment(int marker, const std::string& body) {
  return std::string("\xFF") + static_cast<char>(marker) + big_endian(body.size() + 2, 2) + body;
}

// A grey progressive JPEG with `scans` scans over the band 1 to 63 beside the first. Each is one
// code for every 32767 blocks.
std::string scanned(uint32_t side, int scans) {
  const uint32_t blocks = (side / 8) * (side / 8);
  const auto table = [](int kind, char symbol) {
    return segment(0xC4,
                   static_cast<char>(kind) + std::string("\1", 1) + std::string(15, '\0') + symbol);
  };
  std::string bytes = "\xFF\xD8" + segment(0xDB, std::string(1, '\0') + std::string(64, '\1')) +
                      segment(0xC2, "\x08" + big_endian(side, 2) + big_endian(side, 2) +
                                        std::string("\1\1\x11\0", 4)) +
                      table(0x00, '\0') + table(0x10, '\xE0');
  const auto scan = [&](const std::string& band, uint32_t bits, bool ones) {
    std::string data;
    for (uint32_t i = 0; i < (bits + 7) / 8; ++i) data += ones ? "\x7F" : std::string(1, '\0');
    bytes += segment(0xDA, std::string("\1\1\0", 3) + band) + data;
  };
  scan(std::string("\0\0\0", 3), blocks, false);
  for (int i = 0; i < scans; ++i)
    scan(std::string("\1\x3F\0", 3), (blocks / 16384 + 1) * 15, false);
  return bytes + "\xFF\xD9";
}

std::string image_refusal(const std::filesystem::path& file, int64_t channels = 3) {
  return message_of<mlo::Error>([&] { mlo::read_image(file, channels); });
}

}  // namespace

TEST_CASE("A part of a resized image is that of the whole, to the bit", "[augment]") {
  std::mt19937 random(11);
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
  };
  for (int i = 0; i < 400; ++i) {
    const at::Tensor image =
        torch::randint(0, 256, {1 + 2 * below(2), 1 + below(40), 1 + below(40)}, at::kByte);
    const int64_t height = below(4) == 0 ? image.size(1) : 1 + below(50),
                  width = below(4) == 0 ? image.size(2) : 1 + below(50);
    mlo::Range rows, columns;
    rows.begin = below(height);
    rows.count = 1 + below(height - rows.begin);
    columns.begin = below(width);
    columns.count = 1 + below(width - columns.begin);
    const at::Tensor whole = mlo::resize_bicubic(image, height, width);
    REQUIRE(
        at::equal(mlo::resized_part(image, height, width, rows, columns),
                  whole.narrow(1, rows.begin, rows.count).narrow(2, columns.begin, columns.count)));
  }
}

TEST_CASE("A long and narrow image costs what the part of it costs that is used", "[augment]") {
  const TemporaryFolder folder;
  std::string row(1, '\0');
  for (int x = 0; x < 1000000; ++x) row += static_cast<char>(x / 7);
  write_bytes(folder / "long.png", png(1000000, 1, "", packed(row)));
  std::string result;
  const Cost cost = cost_of(
      [&] {
        mlo::Augmentation a;
        a.size = 224;
        at::Tensor out = torch::empty({3, 224, 224});
        mlo::augment(mlo::read_image(folder / "long.png"), a, 0, out.data_ptr<float>());
        // The middle: one column of the image fills the square, with half of its neighbours at the
        // sides.
        return std::to_string(out[0][100][112].item<double>() * 255);
      },
      result);
  CHECK(cost.ended);
  CHECK(cost.seconds < 5.0);  // it was 41, for 7.7 GB
  CHECK(cost.more_memory < 1e8);
  CHECK(std::abs(std::stod(result) - 500000 / 7 % 256) < 2.0);
}

TEST_CASE("Scans that only keep the reader busy are refused", "[images]") {
  const TemporaryFolder folder;
  write_bytes(folder / "few.jpg", scanned(64, 20));
  CHECK(mlo::read_image(folder / "few.jpg").sizes() == at::IntArrayRef({3, 64, 64}));
  write_bytes(folder / "many.jpg", scanned(64, 120));
  CHECK_THAT(image_refusal(folder / "many.jpg"),
             Contains("many.jpg") && Contains("more than 100 scans"));
  const std::string bytes = scanned(9400, 12000);
  CHECK(bytes.size() < 2300000);
  write_bytes(folder / "slow.jpg", bytes);
  std::string message;
  const Cost cost = cost_of([&] { return image_refusal(folder / "slow.jpg", 1); }, message);
  CHECK_THAT(message, Contains("more than 97 scans"));
  CHECK(cost.seconds < 10.0);
  CHECK(cost.more_memory < kGigabyte);
}

TEST_CASE("The channels that are asked for and what resizing takes are counted", "[images]") {
  const TemporaryFolder folder;
  constexpr const char* kTooMany = "more pixels than so few bytes can hold";
  write_bytes(folder / "grey.png", png(9000, 9000));
  CHECK(std::filesystem::file_size(folder / "grey.png") < 100000);
  std::string result;
  Cost cost = cost_of([&] { return image_refusal(folder / "grey.png"); }, result);
  CHECK_THAT(result, Contains(kTooMany));
  CHECK(cost.more_memory < 0.1 * kGigabyte);
  CHECK_THAT(message_of<mlo::Error>([&] { mlo::image_size(folder / "grey.png"); }),
             Contains(kTooMany));
  CHECK(mlo::image_size(folder / "grey.png", 1) == mlo::ImageSize{.width = 9000, .height = 9000});
  CHECK(cost_of([&] { return std::to_string(mlo::read_image(folder / "grey.png", 1).size(1)); },
                result)
            .more_memory < 0.3 * kGigabyte);
  CHECK(result == "9000");
  // The largest that is read, cropped and resized.
  write_bytes(folder / "largest.png", png(6200, 6250));
  cost = cost_of(
      [&] {
        mlo::Augmentation a;
        a.size = 224;
        at::Tensor out = torch::empty({3, 224, 224});
        mlo::augment(mlo::read_image(folder / "largest.png"), a, 0, out.data_ptr<float>());
        return std::string("read");
      },
      result);
  CHECK(result == "read");
  CHECK(cost.more_memory < 0.45 * kGigabyte);  // LibTorch has 0.47 before
  // A progressive JPEG is kept as coefficients of 16 bits.
  write_bytes(folder / "scans.jpg", scanned(9600, 1));
  CHECK_THAT(image_refusal(folder / "scans.jpg", 1), Contains("too many to be true"));
}

TEST_CASE("What few bytes unpack to is bounded", "[images]") {
  const TemporaryFolder folder;
  const auto check = [&](const std::string& bytes, const std::string& words) {
    REQUIRE(bytes.size() < 1100000);
    write_bytes(folder / "file.png", bytes);
    std::string message;
    const Cost cost = cost_of([&] { return image_refusal(folder / "file.png"); }, message);
    CHECK_THAT(message, Contains(words));
    CHECK(cost.ended);
    CHECK(cost.seconds < 10.0);
    CHECK(cost.more_memory < 0.3 * kGigabyte);
  };
  // 128 texts of 8 MB each
  std::string texts;
  const std::string text =
      chunk("zTXt", std::string("a\0\0", 3) + packed(std::string(7900000, ' ')));
  for (int i = 0; i < 128; ++i) texts += text;
  check(png(8, 8, texts), "");
  check(png(20000, 14000, "", packed("x")), "more pixels than so few bytes can hold");
  // A whole image of a ratio that nobody's photograph has is one all the same, if it is small.
  check(png(4000, 4000), "");
}
