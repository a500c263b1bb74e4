#include "fuzz/targets.h"

#include "io/files.h"
#include "mlomae/config/json.h"
#include "mlomae/config/presets.h"

#include <ATen/ATen.h>
#include <mlo/data/idx.h>
#include <mlo/data/image_files.h>
#include <mlo/data/images.h>
#include <mlo/error.h>
#include <mlo/io/checkpoint.h>
#include <mlo/io/safetensors.h>
#include <torch/types.h>
#include <zlib.h>
#include <nlohmann/json.hpp>

#include <array>
#include <sstream>

namespace {

using Path = std::filesystem::path;

std::string as_bytes(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

template <class Write>
std::string written(const Write& write) {
  const TemporaryFolder folder;
  write(folder / "file");
  return read_bytes(folder / "file");
}

at::Tensor counted(at::IntArrayRef shape, at::ScalarType type) {
  return at::arange(c10::multiply_integers(shape), at::kLong).reshape(shape).to(type);
}

std::vector<std::string> checkpoints() {
  return {written([](const Path& file) {
    mlo::State state;
    state.set("steps", int64_t{7});
    state.set("best", 0.25);
    state.set("name", std::string("fit"));
    state.set("weight", counted({2, 3}, at::kFloat));
    state.set("bytes", counted({5}, at::kByte));
    mlo::write_checkpoint(file, state);
  })};
}

std::vector<std::string> safetensors() {
  return {written([](const Path& file) {
    mlo::write_safetensors(file, {.tensors = {{"a", counted({2, 3}, at::kFloat)},
                                              {"b", counted({4}, at::kHalf)},
                                              {"c", counted({}, at::kLong)}},
                                  .metadata = {{"format", "pt"}}});
  })};
}

std::string idx_bytes(char type, std::initializer_list<unsigned char> sizes, std::size_t bytes) {
  std::string text{'\0', '\0', type, static_cast<char>(sizes.size())};
  for (const unsigned char size : sizes) text += {'\0', '\0', '\0', static_cast<char>(size)};
  for (std::size_t i = 0; i < bytes; ++i) text += static_cast<char>(i % 251);
  return text;
}

std::string packed(const std::string& bytes) {
  return written([&](const Path& file) {
    gzFile out = gzopen(file.c_str(), "wb");
    gzwrite(out, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(out);
  });
}

std::vector<std::string> idx() {
  const std::string images = idx_bytes(8, {3, 4, 5}, 60), numbers = idx_bytes(13, {2, 3}, 24);
  return {images, numbers, packed(images), packed(numbers)};
}

// Read as the first of the official files; the names of classes stand beside it.
std::vector<std::string> cifar() {
  std::string record(3073, '\3');
  return {record, record + record};
}
void read_cifar(const Path& file) {
  const Path folder = file.parent_path() / "cifar";
  std::filesystem::create_directories(folder);
  std::filesystem::rename(file, folder / "data_batch_1.bin");
  const auto images = mlo::cifar10_images(folder, true);
  for (int64_t i = 0; i < images->size(); ++i) images->image(i), images->label(i);
}

void read_picture(const Path& file) {
  mlo::image_size(file);
  mlo::read_image(file, 3, mlo::Orientation::upright);
  mlo::read_image(file, 1);
}

// The fixtures of the image tests: a line a file, "name height width bytes …" in hexadecimal
// digits.
std::vector<std::string> fixtures(const std::string& ending) {
  std::vector<std::string> all;
  for (const char* list : {"images.hex", "upright.hex"}) {
    std::istringstream lines(read_bytes(Path(MLO_TEST_DATA) / list));
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string name, height, width, hex, bytes;
      words >> name >> height >> width >> hex;
      if (!name.ends_with(ending)) continue;
      for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
        bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
      all.push_back(std::move(bytes));
    }
  }
  return all;
}

std::vector<std::string> pngs() {
  std::vector<std::string> all = fixtures(".png");
  all.push_back(as_bytes(mlo::encode_png(counted({3, 5, 7}, at::kByte))));
  return all;
}

std::vector<std::string> settings() {
  std::vector<std::string> all;
  for (const char* name : {"micro", "reference"})
    all.push_back(mlomae::to_json(mlomae::preset(name)).dump(1));
  return all;
}
void read_settings(const Path& file) {
  mlomae::Settings settings = mlomae::preset("micro");
  mlomae::apply_file(settings, file);
  settings.validate();
}

}  // namespace

const std::vector<FuzzTarget>& fuzz_targets() {
  static const std::vector<FuzzTarget> all = {
      {"checkpoint", checkpoints, [](const Path& file) { mlo::read_checkpoint(file); }},
      {"safetensors", safetensors, [](const Path& file) { mlo::read_safetensors(file); }},
      {"idx", idx, [](const Path& file) { mlo::read_idx(file); }},
      {"cifar", cifar, read_cifar},
      {"png", pngs, read_picture},
      {"jpeg", [] { return fixtures(".jpg"); }, read_picture},
      {"settings", settings, read_settings},
  };
  return all;
}

bool taken(const FuzzTarget& target, const std::string& bytes, const std::filesystem::path& file) {
  write_bytes(file, bytes);
  try {
    target.read(file);
    return true;
  } catch (const mlo::Error&) {
    return false;
  }
}
