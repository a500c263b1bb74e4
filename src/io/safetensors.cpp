#include "mlo/io/safetensors.h"
#include "mlo/io/file_sink.h"

#include "io/json.h"
#include "io/open_sink.h"
#include "io/regular_file.h"
#include "io/stored_tensor.h"
#include "text.h"

#include <algorithm>
#include <array>
#include <set>

namespace mlo {
namespace {

using Json = nlohmann::json;

constexpr std::pair<at::ScalarType, const char*> kTypes[] = {{at::kBool, "BOOL"},
                                                             {at::kByte, "U8"},
                                                             {at::kChar, "I8"},
                                                             {at::kShort, "I16"},
                                                             {at::kInt, "I32"},
                                                             {at::kLong, "I64"},
                                                             {at::kHalf, "F16"},
                                                             {at::kBFloat16, "BF16"},
                                                             {at::kFloat, "F32"},
                                                             {at::kDouble, "F64"},
                                                             {at::kFloat8_e4m3fn, "F8_E4M3"},
                                                             {at::kFloat8_e5m2, "F8_E5M2"}};

constexpr uint64_t kLongestHeader = 100'000'000;  // the format's own limit

class SafetensorsReader {
  struct Part {
    uint64_t begin = 0, end = 0;
    std::string name = {};
    at::ScalarType type = at::kFloat;
    std::vector<int64_t> shape = {};
  };

 public:
  explicit SafetensorsReader(const std::filesystem::path& file)
      : path_(file), file_(file, [this](const std::string& what, const std::string& cure) {
          fail(what, cure);
        }) {}

  Safetensors read() {
    std::array<uint8_t, 8> length = {};
    if (file_.size() < 8)
      fail(message("has {} bytes, fewer than the length of a safetensors file's header takes",
                   file_.size()),
           "it is truncated or of another format");
    file_.read(length.data(), 8);
    uint64_t header_size = 0;
    for (int i = 7; i >= 0; --i)
      header_size = header_size << 8 | length[static_cast<std::size_t>(i)];
    if (header_size > kLongestHeader || header_size > file_.left())
      fail(message("announces a header of {} bytes in a file of {}", header_size, file_.size()),
           "it is truncated or of another format");
    std::string text(header_size, '\0');
    file_.read(text.data(), header_size);
    data_size_ = file_.left();

    Safetensors content;
    const Json header = parse(text);
    std::vector<Part> parts;
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") {
        if (!entry.is_object()) fail("has metadata that is no object", "it is damaged");
        for (const auto& [key, value] : entry.items()) {
          if (!value.is_string())
            fail(message("has metadata {} that is no text", quoted(key)), "it is damaged");
          content.metadata[key] = value.get<std::string>();
        }
        continue;
      }
      parts.push_back(part(name, entry));
    }
    std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
      return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    uint64_t position = 0;
    for (Part& part : parts) {
      if (part.begin != position)
        fail(message("has tensor {} at byte {} of its data, expected {} (tensors must follow each "
                     "other)",
                     mlo::quoted(part.name), part.begin, position),
             "it is damaged");
      at::Tensor tensor = allocated(part.shape, part.type);
      if (!tensor.defined())
        fail(message("needs {} bytes of memory for tensor {}", part.end - part.begin,
                     mlo::quoted(part.name)),
             "free some");
      if (part.end > part.begin) file_.read(tensor.mutable_data_ptr(), part.end - part.begin);
      position = part.end;
      content.tensors.emplace_back(std::move(part.name), std::move(tensor));
    }
    if (position != data_size_)
      fail(message("has {} bytes of data, of which its tensors fill {}", data_size_, position),
           "it is damaged");
    return content;
  }

 private:
  Json parse(const std::string& text) const {
    Json header;
    try {
      header = parsed_json(text);
    } catch (const Error& error) {
      fail(message("has a header that {}", error.what()), "it is damaged or of another format");
    }
    if (!header.is_object()) fail("has a header that is no JSON object", "it is of another format");
    return header;
  }

  std::pair<uint64_t, uint64_t> offsets(const std::string& name, const Json& entry) const {
    const auto bad = [&] {
      fail(message("has no valid data_offsets for {}", quoted(name)), "it is damaged");
    };
    if (!entry.is_object() || !entry.contains("data_offsets")) bad();
    const Json& range = entry["data_offsets"];
    if (!range.is_array() || range.size() != 2 || !range[0].is_number_unsigned() ||
        !range[1].is_number_unsigned())
      bad();
    const auto begin = range[0].get<uint64_t>(), end = range[1].get<uint64_t>();
    if (begin > end || end > data_size_) bad();
    return {begin, end};
  }

  Part part(const std::string& name, const Json& entry) const {
    const auto [begin, end] = offsets(name, entry);
    const std::string type = entry.contains("dtype") && entry["dtype"].is_string()
                                 ? entry["dtype"].get<std::string>()
                                 : "";
    const auto* known = std::find_if(std::begin(kTypes), std::end(kTypes),
                                     [&](const auto& t) { return type == t.second; });
    if (known == std::end(kTypes))
      fail(message("has tensor {} of the unknown type {}", quoted(name), quoted(excerpt(type))),
           "convert it to float32");
    const auto bad_shape = [&] {
      fail(message("has no valid shape for {}", quoted(name)), "it is damaged");
    };
    if (!entry.contains("shape") || !entry["shape"].is_array()) bad_shape();
    std::vector<int64_t> sizes;
    for (const Json& n : entry["shape"]) {
      if (!n.is_number_unsigned() || n.get<uint64_t>() > INT64_MAX) bad_shape();
      sizes.push_back(n.get<int64_t>());
    }
    const auto count = bytes_of(sizes, known->first);
    if (!count) bad_shape();
    if (*count != end - begin)
      fail(message("has {} bytes for {}, whose type and shape need {}", end - begin, quoted(name),
                   *count),
           "it is damaged");
    return {begin, end, name, known->first, std::move(sizes)};
  }

  [[noreturn]] void fail(const std::string& what, const std::string& cure) const {
    refuse<Error>("{}: {}; {}", path_.string(), excerpt(what), cure);
  }

  const std::filesystem::path& path_;
  RegularFile file_;
  uint64_t data_size_ = 0;
};

}  // namespace

const at::Tensor& Safetensors::at(const std::string& name) const {
  constexpr std::size_t kNamed = 8;
  std::vector<std::string> names;
  for (const auto& [key, tensor] : tensors) {
    if (key == name) return tensor;
    if (names.size() < kNamed) names.push_back(excerpt(key));
  }
  refuse<Error>("there is no tensor {}; there are {}: {}{}", quoted(name), tensors.size(),
                listed(names), tensors.size() > kNamed ? ", …" : "");
}

Safetensors read_safetensors(const std::filesystem::path& file) {
  return SafetensorsReader(file).read();
}

void write_safetensors(const std::filesystem::path& file, const Safetensors& content,
                       const SinkFactory& sink) {
  struct Part {
    std::string name;
    at::Tensor tensor;
  };
  std::vector<Part> parts;
  std::set<std::string> seen;
  for (const auto& [name, tensor] : content.tensors) {
    if (name == "__metadata__" || !seen.insert(name).second)
      refuse<Error>("write_safetensors: the name {} is given twice or reserved; rename it",
                    quoted(name));
    if (!tensor.defined() || tensor.layout() != at::kStrided)
      refuse<Error>("write_safetensors: {} is no dense tensor; convert it", quoted(name));
    const auto* known =
        std::find_if(std::begin(kTypes), std::end(kTypes),
                     [type = tensor.scalar_type()](const auto& t) { return type == t.first; });
    if (known == std::end(kTypes))
      refuse<Error>(
          "write_safetensors: {} is of type {}, which the format does not have; convert it",
          quoted(name), c10::toString(tensor.scalar_type()));
    parts.push_back({name, tensor.detach().cpu().contiguous()});
  }
  // Wide elements first: all stay aligned.
  std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
    return a.tensor.element_size() > b.tensor.element_size();
  });

  const auto as_json = [](const auto& value) {
    try {
      return nlohmann::ordered_json(value).dump();
    } catch (const nlohmann::json::exception& error) {
      refuse<Error>(
          "write_safetensors: a name or a text of the metadata is not UTF-8, which the format "
          "needs "
          "({}); give others",
          error.what());
    }
  };
  std::string text = "{";  // an object of JSON that keeps the order has a linear search at each key
  if (!content.metadata.empty()) text += "\"__metadata__\":" + as_json(content.metadata);
  uint64_t position = 0;
  for (const Part& part : parts) {
    const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) {
      return part.tensor.scalar_type() == t.first;
    });
    const uint64_t end = position + part.tensor.nbytes();
    const nlohmann::ordered_json entry = {{"dtype", type->second},
                                          {"shape", part.tensor.sizes().vec()},
                                          {"data_offsets", {position, end}}};
    text += (text.size() > 1 ? "," : "") + as_json(part.name) + ":" + entry.dump();
    position = end;
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::array<uint8_t, 8> length = {};
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(text.size() >> (8 * i));

  const auto out = open_sink(sink, file);
  out->write(length.data(), length.size());
  out->write(text.data(), text.size());
  for (const Part& part : parts) out->write(part.tensor.const_data_ptr(), part.tensor.nbytes());
  out->commit();
}

}  // namespace mlo
