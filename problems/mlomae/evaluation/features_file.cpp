#include "mlomae/evaluation/features_file.h"

#include "mlomae/config/json_text.h"
#include "mlomae/message.h"

#include <mlo/io/checkpoint.h>
#include <mlo/io/file_sink.h>
#include <mlo/io/safetensors.h>
#include <torch/types.h>
#include <nlohmann/json.hpp>

namespace mlomae {
namespace {

// github.com/numpy/numpy, doc "NEP 1": magic, version 1.0, a header padded to a multiple of 64
// bytes, the numbers.
std::string npy_header(int64_t rows, int64_t columns) {
  std::string text =
      message("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, columns);
  constexpr std::size_t kBefore = 10;
  text.append(63 - (kBefore + text.size()) % 64, ' ');
  text += '\n';
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(text.size() & 0xFF) +
         static_cast<char>(text.size() >> 8) + text;
}

// As RFC 4180 has it: quoted where it must be.
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

void check_features_file(const std::filesystem::path& file) {
  const std::string ending = file.extension().string();
  if (ending != ".safetensors" && ending != ".npy" && ending != ".csv")
    refuse(
        "{}: features are written as .safetensors, .npy or .csv; give a name with one of these "
        "endings",
        file.string());
}

void write_features(const std::filesystem::path& file, const std::vector<std::string>& images,
                    const Features& features, const std::string& feature) {
  check_features_file(file);
  if (file.extension() == ".safetensors") {
    mlo::write_safetensors(file,
                           {.tensors = {{"class", features.class_token}, {"mean", features.mean}},
                            .metadata = {{"images", json_text(images)}}});
    return;
  }
  const at::Tensor numbers = features.of(feature).to(at::kFloat).contiguous();
  const int64_t rows = numbers.size(0), columns = numbers.size(1);
  const auto* data = numbers.const_data_ptr<float>();
  const auto sink = mlo::atomic_file(file);
  if (file.extension() == ".npy") {
    const std::string header = npy_header(rows, columns);
    sink->write(header.data(), header.size());
    sink->write(data, numbers.nbytes());
  } else {
    std::string line = "image";
    for (int64_t c = 0; c < columns; ++c) line += message(",{}{}", feature, c);
    for (int64_t r = 0; r < rows; ++r) {
      line += "\n" + csv_field(images[static_cast<std::size_t>(r)]);
      for (int64_t c = 0; c < columns; ++c) line += message(",{}", data[r * columns + c]);
      sink->write(line.data(), line.size());
      line.clear();
    }
    line += "\n";
    sink->write(line.data(), line.size());
  }
  sink->commit();
}

}  // namespace mlomae
