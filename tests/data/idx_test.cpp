#include "io/cost.h"
#include "io/files.h"

#include <mlo/data/idx.h>
#include <mlo/error.h>

#include <zlib.h>

#include <random>

#include "catch.h"

namespace {

std::string big_endian(uint64_t bits, int width) {
  std::string bytes;
  for (int shift = 8 * (width - 1); shift >= 0; shift -= 8)
    bytes += static_cast<char>(bits >> shift);
  return bytes;
}

std::string header(int type, const std::vector<uint32_t>& shape) {
  std::string bytes = {0, 0, static_cast<char>(type), static_cast<char>(shape.size())};
  for (const uint32_t n : shape) bytes += big_endian(n, 4);
  return bytes;
}

std::string digits() {
  return header(8, {3, 2, 2}) + std::string("\0\1\2\3\4\5\6\7\x08\x09\x80\xFF", 12);
}

void pack(const std::filesystem::path& path, const std::string& bytes) {
  gzFile file = ::gzopen(path.c_str(), "wb");
  REQUIRE(::gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())) ==
          static_cast<int>(bytes.size()));
  REQUIRE(::gzclose(file) == Z_OK);
}

std::string idx_refusal(const std::filesystem::path& path) {
  const std::string message = message_of<mlo::Error>([&] { mlo::read_idx(path); });
  if (!message.empty()) CHECK_THAT(message, Contains(path.string()) && Contains("; "));
  return message;
}

}  // namespace

TEST_CASE("An IDX file is a tensor, plain or packed", "[idx]") {
  const TemporaryFolder folder;
  const at::Tensor expected =
      torch::tensor({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 128, 255}, torch::kByte).reshape({3, 2, 2});
  write_bytes(folder / "plain", digits());
  pack(folder / "packed", digits());
  for (const char* name : {"plain", "packed"}) {
    const at::Tensor images = mlo::read_idx(folder / name);
    CHECK(images.scalar_type() == torch::kByte);
    CHECK(images.sizes() == expected.sizes());
    CHECK(at::equal(images, expected));
  }
  write_bytes(folder / "empty", header(8, {0, 28, 28}));
  CHECK(mlo::read_idx(folder / "empty").sizes() == at::IntArrayRef{0, 28, 28});
}

TEST_CASE("An IDX file may hold every type of the format", "[idx]") {
  const TemporaryFolder folder;
  const auto check = [&](int type, const std::string& data, const at::Tensor& expected) {
    write_bytes(folder / "file", header(type, {2}) + data);
    const at::Tensor tensor = mlo::read_idx(folder / "file");
    CHECK(tensor.scalar_type() == expected.scalar_type());
    CHECK(at::equal(tensor, expected));
  };
  check(0x08, "\x01\xFF", torch::tensor({1, 255}, torch::kByte));
  check(0x09, "\x01\xFF", torch::tensor({1, -1}, torch::kChar));
  check(0x0B, big_endian(258, 2) + "\xFF\xFE", torch::tensor({258, -2}, torch::kShort));
  check(0x0C, big_endian(0x01020304, 4) + "\xFF\xFF\xFF\xFE",
        torch::tensor({0x01020304, -2}, torch::kInt));
  check(0x0D, big_endian(0x3FC00000, 4) + big_endian(0xC0200000, 4), torch::tensor({1.5F, -2.5F}));
  check(0x0E, big_endian(0x3FF8000000000000, 8) + big_endian(0xC004000000000000, 8),
        torch::tensor({1.5, -2.5}, torch::kDouble));
}

TEST_CASE("An IDX file cut off anywhere is refused, plain or packed", "[idx]") {
  const TemporaryFolder folder;
  write_bytes(folder / "plain", digits());
  pack(folder / "packed", digits());
  for (const char* name : {"plain", "packed"}) {
    const std::string whole = read_bytes(folder / name);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      write_bytes(folder / "cut", whole.substr(0, size));
      INFO(name << " " << size << " of " << whole.size());
      REQUIRE_FALSE(idx_refusal(folder / "cut").empty());
    }
  }
  write_bytes(folder / "cut", digits().substr(0, 2));
  CHECK_THAT(idx_refusal(folder / "cut"), Contains("ends within its magic number, 2 bytes early"));
  write_bytes(folder / "cut", digits().substr(0, 9));
  CHECK_THAT(idx_refusal(folder / "cut"), Contains("ends within its dimensions"));
  write_bytes(folder / "cut", digits().substr(0, 27));
  CHECK_THAT(idx_refusal(folder / "cut"),
             Contains("ends within its data, 1 bytes early") && Contains("truncated"));
}

TEST_CASE("A packed IDX file of any size without its checksum and length is refused", "[idx]") {
  const TemporaryFolder folder;
  for (const uint32_t rows :
       {1U, 50U, 500U, 5000U,
        40000U}) {  // without the last 8 bytes, 30 MB were read as if they were whole
    std::string bytes = header(8, {rows, 28, 28});
    std::mt19937 random(rows);
    while (bytes.size() < 16 + rows * 784) bytes += static_cast<char>(random() % 4);
    pack(folder / "packed", bytes);
    const std::string whole = read_bytes(folder / "packed");
    INFO(rows);
    CHECK(idx_refusal(folder / "packed").empty());
    for (const std::size_t missing : {1U, 4U, 8U, 9U}) {
      write_bytes(folder / "cut", whole.substr(0, whole.size() - missing));
      CHECK_THAT(idx_refusal(folder / "cut"), Contains("truncated"));
    }
    write_bytes(folder / "cut", whole + "x");
    CHECK_FALSE(idx_refusal(folder / "cut").empty());
  }
}

TEST_CASE("What gzip packed in parts is one IDX file", "[idx]") {
  const TemporaryFolder folder;
  pack(folder / "a", digits().substr(0, 19));
  pack(folder / "b", digits().substr(19));
  write_bytes(folder / "both", read_bytes(folder / "a") + read_bytes(folder / "b"));
  CHECK(mlo::read_idx(folder / "both")[2][1][1].item<int>() == 255);
}

TEST_CASE("A small packed IDX file cannot fill the memory", "[idx]") {
  const TemporaryFolder folder;
  // 400 MB of zeros pack to 400 kB.
  gzFile file = ::gzopen((folder / "bomb").c_str(), "wb1");
  const std::string head = header(8, {400, 1000, 1000}), zeros(1000000, '\0');
  ::gzwrite(file, head.data(), static_cast<unsigned>(head.size()));
  for (int i = 0; i < 400; ++i) ::gzwrite(file, zeros.data(), static_cast<unsigned>(zeros.size()));
  REQUIRE(::gzclose(file) == Z_OK);
  write_bytes(folder / "labels", header(8, {399}) + std::string(399, '\1'));
  std::string message;
  const Cost cost = cost_of([&] { return idx_refusal(folder / "bomb"); }, message);
  CHECK_THAT(message, Contains("announces more data than"));
  CHECK(cost.more_memory < 1e8);
  CHECK(cost.seconds < 5.0);
}

TEST_CASE("A damaged packed IDX file is refused", "[idx]") {
  const TemporaryFolder folder;
  pack(folder / "packed", digits());
  std::string bytes = read_bytes(folder / "packed");
  bytes[bytes.size() - 6] = static_cast<char>(bytes[bytes.size() - 6] ^ 1);  // within the checksum
  write_bytes(folder / "packed", bytes);
  CHECK_THAT(idx_refusal(folder / "packed"),
             Contains("cannot be unpacked") && Contains("get it again"));
}

TEST_CASE("What is no IDX file is refused by name, and allocates nothing", "[idx]") {
  const TemporaryFolder folder;
  const auto with = [&](const std::string& bytes) {
    write_bytes(folder / "file", bytes);
    return idx_refusal(folder / "file");
  };
  CHECK_THAT(idx_refusal(folder / "none"), Contains("No such file"));
  CHECK_THAT(idx_refusal(folder / "."), Contains("is not a file but a folder"));
  CHECK_THAT(with("\x89PNG and so on"),
             Contains("begins with the bytes 137 80 78 71, expected 0 0"));
  CHECK_THAT(with(std::string("\0\0\x08\0", 4)), Contains("begins with the bytes 0 0 8 0"));
  CHECK_THAT(with(header(0x0A, {1}) + "x"), Contains("unknown type 10"));
  CHECK_THAT(with(digits() + "x"), Contains("goes on after the data"));
  CHECK_THAT(with(header(8, {0xFFFFFFFF}) + "x"), Contains("announces more data than its 9 bytes"));
  const std::vector<uint32_t> huge(8, 0xFFFFFFFF);
  CHECK_THAT(with(header(8, huge) + "x"), Contains("announces more data"));
  CHECK_THAT(with(header(14, {0, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF})),
             Contains("announces more data"));
  pack(folder / "file", header(8, {0xFFFFFFFF}) + "x");
  CHECK_THAT(idx_refusal(folder / "file"), Contains("announces more data"));
}
