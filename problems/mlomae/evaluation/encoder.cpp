#include "mlomae/evaluation/encoder.h"

#include "mlomae/message.h"
#include "mlomae/models/weights.h"
#include "mlomae/run/record.h"

#include <mlo/data/image_file.h>
#include <mlo/data/image_files.h>

#include <algorithm>

namespace mlomae {
namespace {

namespace fs = std::filesystem;

std::vector<double> channel_numbers(const nlohmann::ordered_json& record, const char* key,
                                    int64_t channels, const RunDirectory& directory) {
  std::vector<double> numbers;
  if (record.contains(key) && record[key].is_array())
    for (const auto& number : record[key])
      if (number.is_number()) numbers.push_back(number.get<double>());
  require<mlo::Error>(
      static_cast<int64_t>(numbers.size()) == channels,
      "{}: {} is not a number for each of {} channels, so that images cannot be normalized as the "
      "run's were; restore the file, or import the weights again",
      directory.record().string(), key, channels);
  return numbers;
}

}  // namespace

Features Encoder::of(const mlo::ImageSet& images, int64_t batch, const Progress& progress) const {
  return features(mae, images, {}, plain, batch, progress);
}

Encoder read_encoder(const RunDirectory& directory, const at::Device& device) {
  directory.check_weights();
  Encoder encoder;
  const ModelOptions options = model_options_of(directory.model());
  encoder.mae = MaskedAutoencoder(options);
  import_weights(directory.model(), encoder.mae);
  encoder.mae->to(device);
  const auto record = read_record(directory.path);
  encoder.plain.size = options.image_size;
  encoder.plain.mean = channel_numbers(record, "mean", options.channels, directory);
  encoder.plain.deviation = channel_numbers(record, "deviation", options.channels, directory);
  return encoder;
}

std::vector<fs::path> image_files(const std::vector<fs::path>& given) {
  std::vector<fs::path> files;
  for (const fs::path& path : given) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      require(fs::exists(path, error), "{}: no such file; give images, or folders of them",
              path.string());
      files.push_back(path);
      continue;
    }
    std::vector<fs::path> inside;
    for (const auto& entry :
         fs::recursive_directory_iterator(path, fs::directory_options::follow_directory_symlink))
      if (entry.is_regular_file(error) && mlo::named_as_image(entry.path()))
        inside.push_back(entry.path());
    require(!inside.empty(), "{}: no JPEG or PNG files in this folder or below it", path.string());
    std::sort(inside.begin(), inside.end());
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

std::shared_ptr<const mlo::ImageSet> unlabelled(const std::vector<fs::path>& files,
                                                int64_t channels) {
  return mlo::file_images(files, std::vector<int64_t>(files.size(), 0), {"unlabelled"}, channels);
}

}  // namespace mlomae
