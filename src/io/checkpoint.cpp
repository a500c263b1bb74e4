#include "mlo/io/checkpoint.h"
#include "mlo/io/file_sink.h"

#include "io/json.h"
#include "io/open_sink.h"
#include "io/regular_file.h"
#include "io/stored_tensor.h"
#include "text.h"

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>

// The file: header | manifest | bytes of the first tensor | bytes of the second | …, without gaps.
// The manifest is a JSON array with an object for each value, in the order of keys; an object of a
// tensor holds the CRC-32 of its bytes.
namespace mlo {
namespace {

using Json = nlohmann::json;

constexpr std::array<char, 8> kMagic = {'m',  'l',    'o',  '\r',
                                        '\n', '\x1a', '\n', '\0'};  // a text-mode copy damages it
constexpr uint32_t kVersion = 1;

/// Keeps its layout in every version, so that an old reader can say that a file is new.
struct Header {
  std::array<char, 8> magic = kMagic;
  uint32_t version = kVersion;
  uint32_t manifest_crc = 0;
  uint64_t manifest_size = 0;
  uint64_t tensors_size = 0;
  uint64_t header_crc = 0;  // of the bytes before
};
static_assert(sizeof(Header) == 40 && std::has_unique_object_representations_v<Header>);
static_assert(std::endian::native == std::endian::little,
              "swap the bytes of headers and tensors on this machine");

uint32_t crc32_of(const void* bytes, std::size_t count) {
  return static_cast<uint32_t>(::crc32_z(0, static_cast<const Bytef*>(bytes), count));
}

// Texts and keys may hold any bytes, JSON only UTF-8: byte b travels as code point b.
std::string text_to_json(const std::string& bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) text += static_cast<char>(0xC0 | (byte >> 6));
    text += static_cast<char>(byte < 0x80 ? byte : 0x80 | (byte & 0x3F));
  }
  return text;
}

std::string text_from_json(const std::string& text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto lead = static_cast<unsigned char>(text[i]);
    // The parser has checked that this is UTF-8: a lead byte is followed by what it announces.
    bytes += lead < 0x80
                 ? text[i]
                 : static_cast<char>((lead << 6) | (static_cast<unsigned char>(text[++i]) & 0x3F));
  }
  return bytes;
}

/// The tensor whose bytes are stored: dense, contiguous, on the CPU. The tensor itself where it is
/// that already.
at::Tensor stored(const std::string& key, const at::Tensor& tensor) {
  try {
    TORCH_CHECK(tensor.layout() == c10::kStrided && !tensor.is_quantized(),
                "it is sparse or quantized");
    return tensor.detach().to(c10::kCPU).resolve_conj().resolve_neg().contiguous();
  } catch (const c10::Error& error) {
    refuse<CheckpointError>(
        "tensor {} of the state cannot be saved: {}; only dense tensors that hold memory can: put "
        "another form of it into the state",
        quoted(key), error.what_without_backtrace());
  }
}

constexpr const char* kUndefined = "Undefined";

c10::ScalarType type_of_name(const std::string& name) {
  for (int8_t i = 0; i < static_cast<int8_t>(c10::ScalarType::NumOptions); ++i) {
    const auto type = static_cast<c10::ScalarType>(i);
    if (!c10::isQIntType(type) && name == c10::toString(type)) return type;
  }
  return c10::ScalarType::Undefined;
}

class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& path)
      : path_(path), file_(path, [this](const std::string& what, const std::string& cure) {
          fail(what, cure);
        }) {}

  State read() {
    const Header header = read_header();
    std::string manifest(header.manifest_size, '\0');
    file_.read(manifest.data(), manifest.size());
    check_crc("its manifest", crc32_of(manifest.data(), manifest.size()), header.manifest_crc);
    State state;
    try {
      for (const Json& entry : manifest_of(manifest)) {
        const std::string key = text_from_json(entry.at("key").get<std::string>());
        if (state.has(key)) fail_damaged(message("it holds {} twice", quoted(key)));
        state.set(key, value_of(key, entry));
      }
    } catch (const Json::exception& error) {
      fail_damaged(message("its manifest is not one of this library: {}", error.what()));
    }
    if (file_.left() != 0)
      fail_damaged(message("its manifest leaves out {} bytes of it", file_.left()));
    return state;
  }

 private:
  Header read_header() {
    const uint64_t size = file_.size();
    Header header;
    const auto present = std::min<std::size_t>(sizeof(header), size);
    file_.read(&header, present);
    if (size == 0 ||
        std::memcmp(header.magic.data(), kMagic.data(), std::min(present, kMagic.size())) != 0)
      fail(size == 0 ? "is empty, not a checkpoint"
                     : "is not a checkpoint: it does not begin with this library's magic bytes",
           "give a file that a run has saved");
    if (present < sizeof(header))
      fail_damaged(message("it has {} bytes, expected at least {}", size, sizeof(header)));
    check_crc("its header", crc32_of(&header, offsetof(Header, header_crc)), header.header_crc);
    if (header.version != kVersion)
      fail(message("is of format version {}, this library reads version {}", header.version,
                   kVersion),
           "read it with the version of mlo that saved it, or a later one");
    if (header.manifest_size > file_.left() ||
        header.tensors_size != file_.left() - header.manifest_size)
      fail_damaged(message("it has {} bytes, expected {} + {} + {}", size, sizeof(header),
                           header.manifest_size, header.tensors_size));
    return header;
  }

  Json manifest_of(const std::string& text) const {
    try {
      return parsed_json(text);
    } catch (const Error& error) {
      fail_damaged(message("its manifest is not one of this library: it {}", error.what()));
    }
  }

  State::Value value_of(const std::string& key, const Json& entry) {
    const auto& type = entry.at("type").get_ref<const std::string&>();
    if (type == "tensor") return tensor_of(key, entry);
    const Json& value = entry.at("value");
    if (type == "integer" && value.is_number_integer()) return value.get<int64_t>();
    const auto& text = value.get_ref<const std::string&>();
    if (type == "text") return text_from_json(text);
    uint64_t bits = 0;
    const auto end = text.data() + text.size();
    if (type != "real" || std::from_chars(text.data(), end, bits, 16).ptr != end)
      fail_damaged(
          message("{} is of the unknown type {} or has no value of it", quoted(key), quoted(type)));
    return std::bit_cast<double>(bits);
  }

  at::Tensor tensor_of(const std::string& key, const Json& entry) {
    const auto& name = entry.at("dtype").get_ref<const std::string&>();
    if (name == kUndefined) return {};
    const auto type = type_of_name(name);
    if (type == c10::ScalarType::Undefined)
      fail_damaged(message("tensor {} has the element type {}, which this LibTorch does not know",
                           quoted(key), quoted(name)));
    const auto shape = entry.at("shape").get<std::vector<int64_t>>();
    const auto size = bytes_of(shape, type);
    if (!size || *size > file_.left())
      fail_damaged(message("tensor {} has a shape {} that is not in the file", quoted(key),
                           excerpt(entry.at("shape").dump())));
    at::Tensor tensor = allocated(shape, type);
    if (!tensor.defined())
      fail(message("cannot be read: there is no memory for the {} bytes of tensor {}", *size,
                   quoted(key)),
           "free memory or read it on a larger machine");
    file_.read(tensor.data_ptr(), *size);
    check_crc(message("tensor {}", quoted(key)), crc32_of(tensor.data_ptr(), *size),
              entry.at("crc32").get<uint64_t>());
    return tensor;
  }

  void check_crc(const std::string& part, uint64_t found, uint64_t expected) const {
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    return;  // or a fuzzer never gets past the first
#endif
    if (found != expected)
      fail_damaged(message("{} has the CRC-32 {:x}, expected {:x}", part, found, expected));
  }
  [[noreturn]] void fail_damaged(const std::string& what) const {
    fail(message("is damaged: {}", what),
         "copy it again from where it was saved, or resume from an older one");
  }
  [[noreturn]] void fail(const std::string& what, const std::string& cure) const {
    refuse<CheckpointError>("{}: {}; {}", path_.string(), what, cure);
  }

  const std::filesystem::path& path_;
  RegularFile file_;
};

}  // namespace

void write_checkpoint(const std::filesystem::path& path, const State& state,
                      const SinkFactory& sink) {
  Json entries = Json::array();
  std::vector<at::Tensor> tensors;
  Header header;
  for (const auto& [key, value] : state.values()) {
    Json entry = {{"key", text_to_json(key)}};
    if (const auto* integer = std::get_if<int64_t>(&value)) {
      entry.update({{"type", "integer"}, {"value", *integer}});
    } else if (const auto* real = std::get_if<double>(&value)) {
      entry.update({{"type", "real"}, {"value", message("{:x}", std::bit_cast<uint64_t>(*real))}});
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      entry.update({{"type", "text"}, {"value", text_to_json(*text)}});
    } else if (const auto& tensor = std::get<at::Tensor>(value); !tensor.defined()) {
      entry.update({{"type", "tensor"}, {"dtype", kUndefined}});
    } else {
      tensors.push_back(stored(key, tensor));
      entry.update({{"type", "tensor"},
                    {"dtype", c10::toString(tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"crc32", crc32_of(tensors.back().const_data_ptr(), tensors.back().nbytes())}});
      header.tensors_size += tensors.back().nbytes();
    }
    entries.push_back(std::move(entry));
  }
  const std::string manifest = entries.dump();
  header.manifest_size = manifest.size();
  header.manifest_crc = crc32_of(manifest.data(), manifest.size());
  header.header_crc = crc32_of(&header, offsetof(Header, header_crc));

  const auto file = open_sink(sink, path);
  file->write(&header, sizeof(header));
  file->write(manifest.data(), manifest.size());
  for (const at::Tensor& tensor : tensors) file->write(tensor.const_data_ptr(), tensor.nbytes());
  file->commit();
}

State read_checkpoint(const std::filesystem::path& path) { return CheckpointReader(path).read(); }

}  // namespace mlo
