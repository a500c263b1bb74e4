#include "mlo/data/idx.h"

#include "mlo/error.h"

#include <ATen/ops/empty.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

namespace mlo {
namespace {

class IdxFile {
 public:
  explicit IdxFile(const std::filesystem::path& path) : path_(path) {
    std::error_code error;
    file_size_ = std::filesystem::file_size(path, error);
    if (error) fail("cannot be read: " + error.message(), "check its name, and that it may be read");
    file_.reset(::gzopen(path.c_str(), "rbe"));
    if (!file_) fail("cannot be opened", "check that it may be read");
  }

  at::Tensor read() {
    std::array<uint8_t, 4> magic = {};
    take(magic.data(), magic.size(), "its magic number");
    if (magic[0] != 0 || magic[1] != 0 || magic[3] == 0)
      fail("is not an IDX file: it begins with the bytes " + std::to_string(magic[0]) + " " + std::to_string(magic[1]) +
               " " + std::to_string(magic[2]) + " " + std::to_string(magic[3]) +
               ", expected 0 0, a type and a number of dimensions",
           "give a file of that format, plain or packed by gzip");
    const at::ScalarType type = type_of(magic[2]);
    const auto width = at::elementSize(type);

    // Nothing is allocated that the file cannot hold: deflate packs at most 1032 bytes into one.
    const uint64_t most = ::gzdirect(file_.get()) != 0 ? file_size_ : 1032 * file_size_;
    uint64_t bound = width;  // without the dimensions of zero: LibTorch computes strides from it
    uint64_t size = width;
    std::vector<int64_t> shape;
    for (int i = 0; i < magic[3]; ++i) {
      std::array<uint8_t, 4> bytes = {};
      take(bytes.data(), bytes.size(), "its dimensions");
      shape.push_back(int64_t{bytes[0]} << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3]);
      const auto n = static_cast<uint64_t>(shape.back());
      const bool overflows = __builtin_mul_overflow(bound, std::max<uint64_t>(n, 1), &bound) || bound > INT64_MAX;
      size = n == 0 ? 0 : size * n;
      if (overflows || size > most)
        fail("announces more data than its " + std::to_string(file_size_) + " bytes can hold",
             "it is truncated or damaged: get it again");
    }
    at::Tensor tensor = at::empty(shape, type);
    take(tensor.data_ptr(), size, "its data");
    // Reading up to the end also makes zlib check the length and the checksum.
    uint8_t beyond = 0;
    if (read_some(&beyond, 1) != 0) fail("goes on after the data that it announces", "it is damaged: get it again");
    to_native(static_cast<uint8_t*>(tensor.data_ptr()), size, width);
    return tensor;
  }

 private:
  at::ScalarType type_of(uint8_t code) const {
    switch (code) {
      case 0x08:
        return at::kByte;
      case 0x09:
        return at::kChar;
      case 0x0B:
        return at::kShort;
      case 0x0C:
        return at::kInt;
      case 0x0D:
        return at::kFloat;
      case 0x0E:
        return at::kDouble;
      default:
        fail("has elements of the unknown type " + std::to_string(code) + ", expected 8, 9, 11, 12, 13 or 14",
             "it is damaged or no IDX file: get it again");
    }
  }

  static void to_native(uint8_t* bytes, uint64_t size, std::size_t width) {
    for (uint64_t i = 0; width > 1 && i < size; i += width) std::reverse(bytes + i, bytes + i + width);
  }

  void take(void* bytes, uint64_t count, const std::string& what) {
    auto* next = static_cast<char*>(bytes);
    while (count > 0) {
      const auto got = read_some(next, static_cast<unsigned>(std::min<uint64_t>(count, 1U << 30)));
      if (got == 0)
        fail("ends within " + what + ", " + std::to_string(count) + " bytes early", "it is truncated: get it again");
      next += got;
      count -= got;
    }
  }

  unsigned read_some(void* bytes, unsigned count) {
    const int got = ::gzread(file_.get(), bytes, count);
    int error = Z_OK;
    const char* words = ::gzerror(file_.get(), &error);
    // A packed file that ends too early gives what is there, and Z_BUF_ERROR.
    if (got < 0 || (error != Z_OK && error != Z_STREAM_END))
      fail(std::string("cannot be unpacked: ") + words, "it is truncated or damaged: get it again");
    return static_cast<unsigned>(got);
  }

  [[noreturn]] void fail(const std::string& what, const std::string& cure) const {
    throw Error("IDX file '" + path_.string() + "' " + what + "; " + cure);
  }

  struct Close {
    void operator()(gzFile_s* file) const { ::gzclose(file); }
  };

  const std::filesystem::path& path_;
  uint64_t file_size_ = 0;
  std::unique_ptr<gzFile_s, Close> file_;
};

}  // namespace

at::Tensor read_idx(const std::filesystem::path& file) { return IdxFile(file).read(); }

}  // namespace mlo
