#include "mlo/data/idx.h"

#include "io/regular_file.h"
#include "io/stored_tensor.h"
#include "mlo/data/images.h"
#include "text.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace mlo {
namespace {

using Fail = RegularFile::Fail;

/// The bytes of a file, unpacked if it begins as gzip's files do.
class Unpacked {
 public:
  Unpacked(const std::filesystem::path& path, const Fail& fail) : fail_(fail), file_(path, fail) {
    fill();
    packed_ = input_left_ >= 2 && input_[0] == 0x1F && input_[1] == 0x8B;
    if (packed_ && ::inflateInit2(&stream_, kGzip) != Z_OK)
      fail_("cannot be unpacked: zlib has no memory", "free some");
  }
  ~Unpacked() {
    if (packed_) ::inflateEnd(&stream_);
  }
  Unpacked(const Unpacked&) = delete;
  Unpacked& operator=(const Unpacked&) = delete;

  uint64_t file_size() const { return file_.size(); }
  uint64_t most() const { return packed_ ? most_unpacked(file_.size()) : file_.size(); }

  /// Fewer than `count` only at the end, where length and checksum have been found right.
  uint64_t read(void* bytes, uint64_t count) {
    return packed_ ? unpack(bytes, count) : copy(bytes, count);
  }

 private:
  static constexpr int kGzip = 15 + 16;  // zlib's words for the largest window, and gzip's frame

  void fill() {
    const auto count = static_cast<std::size_t>(std::min<uint64_t>(file_.left(), input_.size()));
    file_.read(input_.data(), count);
    next_ = input_.data();
    input_left_ = count;
  }

  uint64_t copy(void* bytes, uint64_t count) {
    auto* out = static_cast<uint8_t*>(bytes);
    const auto at_hand = static_cast<std::size_t>(std::min<uint64_t>(count, input_left_));
    std::copy_n(next_, at_hand, out);
    next_ += at_hand;
    input_left_ -= at_hand;
    const uint64_t rest = std::min(count - at_hand, file_.left());
    file_.read(out + at_hand, rest);
    return at_hand + rest;
  }

  uint64_t unpack(void* bytes, uint64_t count) {
    constexpr uint64_t kMost = 1U << 30;
    auto* out = static_cast<uint8_t*>(bytes);
    uint64_t done = 0;
    while (done < count && !ended_) {
      if (input_left_ == 0) fill();
      stream_.next_in = next_;
      stream_.avail_in = static_cast<uInt>(input_left_);
      stream_.next_out = out + done;
      const auto room = static_cast<uInt>(std::min(count - done, kMost));
      stream_.avail_out = room;
      const bool starved = input_left_ == 0;
      const int result = ::inflate(&stream_, Z_NO_FLUSH);
      done += room - stream_.avail_out;
      next_ = stream_.next_in;
      input_left_ = stream_.avail_in;
      if (result == Z_STREAM_END) {
        next_member();
      } else if (result != Z_OK && !(result == Z_BUF_ERROR && !starved)) {
        fail_(message("cannot be unpacked: {}", result == Z_BUF_ERROR    ? "it ends too early"
                                                : stream_.msg != nullptr ? stream_.msg
                                                                         : ::zError(result)),
              "it is truncated or damaged: get it again");
      }
    }
    return done;
  }

  // What gzip packed in parts is one member after the other.
  void next_member() {
    if (input_left_ == 0) fill();
    ended_ = input_left_ == 0;
    if (!ended_) ::inflateReset(&stream_);
  }

  const Fail& fail_;
  RegularFile file_;
  std::vector<uint8_t> input_ = std::vector<uint8_t>(std::size_t{1} << 16);
  uint8_t* next_ = nullptr;
  std::size_t input_left_ = 0;
  bool packed_ = false, ended_ = false;
  z_stream stream_ = {};
};

class IdxFile {
 public:
  explicit IdxFile(const std::filesystem::path& path)
      : path_(path),
        fail_([this](const std::string& what, const std::string& cure) { fail(what, cure); }),
        file_(path, fail_) {
    read_header();
  }

  const std::vector<int64_t>& shape() const { return shape_; }
  at::ScalarType type() const { return type_; }

  at::Tensor read() {
    at::Tensor tensor = allocated(shape_, type_);
    if (!tensor.defined()) fail(message("needs {} bytes of memory", size_), "free some");
    take(tensor.data_ptr(), size_, "its data");
    // Only at the end are length and checksum of a packed file seen.
    uint8_t beyond = 0;
    if (file_.read(&beyond, 1) != 0)
      fail("goes on after the data that it announces", "it is damaged: get it again");
    to_native(static_cast<uint8_t*>(tensor.data_ptr()), size_, at::elementSize(type_));
    return tensor;
  }

 private:
  at::ScalarType type_of(uint8_t code) const {
    switch (code) {
      case 0x08: return at::kByte;
      case 0x09: return at::kChar;
      case 0x0B: return at::kShort;
      case 0x0C: return at::kInt;
      case 0x0D: return at::kFloat;
      case 0x0E: return at::kDouble;
      default:
        fail(message("has elements of the unknown type {}, expected 8, 9, 11, 12, 13 or 14", code),
             "it is damaged or no IDX file: get it again");
    }
  }

  static void to_native(uint8_t* bytes, uint64_t size, std::size_t width) {
    for (uint64_t i = 0; width > 1 && i < size; i += width)
      std::reverse(bytes + i, bytes + i + width);
  }

  void read_header() {
    std::array<uint8_t, 4> magic = {};
    take(magic.data(), magic.size(), "its magic number");
    if (magic[0] != 0 || magic[1] != 0 || magic[3] == 0)
      fail(message("is not an IDX file: it begins with the bytes {}, expected 0 0, a type and a "
                   "number of dimensions",
                   fmt::join(magic, " ")),
           "give a file of that format, plain or packed by gzip");
    type_ = type_of(magic[2]);
    for (int i = 0; i < magic[3]; ++i) {
      std::array<uint8_t, 4> bytes = {};
      take(bytes.data(), bytes.size(), "its dimensions");
      shape_.push_back(int64_t{bytes[0]} << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3]);
    }
    const auto size = bytes_of(shape_, type_);
    if (!size || *size > file_.most())
      fail(message("announces more data than its {} bytes can hold", file_.file_size()),
           "it is truncated or damaged: get it again");
    size_ = *size;
  }

  void take(void* bytes, uint64_t count, const std::string& what) {
    if (const uint64_t got = file_.read(bytes, count); got < count)
      fail(message("ends within {}, {} bytes early", what, count - got),
           "it is truncated: get it again");
  }

  [[noreturn]] void fail(const std::string& what, const std::string& cure) const {
    refuse<Error>("{}: {}; {}", path_.string(), what, cure);
  }

  const std::filesystem::path& path_;
  Fail fail_;
  Unpacked file_;
  at::ScalarType type_ = at::kByte;
  std::vector<int64_t> shape_;
  uint64_t size_ = 0;
};

}  // namespace

at::Tensor read_idx(const std::filesystem::path& file) { return IdxFile(file).read(); }

// From the headers it is seen whether the files belong together: before anything large is read.
std::shared_ptr<const ImageSet> idx_images(const std::filesystem::path& images,
                                           const std::filesystem::path& labels) {
  IdxFile pixels(images), numbers(labels);
  const std::vector<int64_t>&shape = pixels.shape(), &count = numbers.shape();
  require<Error>(shape.size() == 3 && pixels.type() == at::kByte &&
                     std::count(shape.begin(), shape.end(), 0) == 0,
                 "{}: holds no images; it must be bytes in 3 dimensions (count, rows, columns), "
                 "none of them 0",
                 images.string());
  require<Error>(count.size() == 1 && numbers.type() == at::kByte,
                 "{}: holds no labels; it must be bytes in 1 dimension", labels.string());
  require<Error>(
      count[0] == shape[0],
      "{}: has {} labels, expected {}, one for each image of {}; give the two files that "
      "belong together",
      labels.string(), count[0], shape[0], images.string());
  const at::Tensor classes = numbers.read().to(at::kLong);
  return tensor_images(pixels.read().unsqueeze(1), classes);
}

}  // namespace mlo
