#pragma once

#include "mlomae/evaluation/linear_probe.h"
#include "mlomae/models/head.h"
#include "mlomae/models/masked_autoencoder.h"

#include <filesystem>
#include <string>
#include <vector>

namespace mlomae {

/// A linear probe of each feature that it was trained on, as `evaluate linear-probe` keeps it.
struct Probes {
  std::vector<std::string> classes;
  std::vector<std::pair<std::string, LinearProbe>> of_feature;  ///< "class", "mean"
  std::string encoder;  ///< checksum of the encoder that the features are of
  /// Throws mlo::ConfigError naming those that there are.
  const LinearProbe& of(const std::string& feature) const;
};
void write_probes(const std::filesystem::path& file, const Probes& probes);
/// Throws mlo::Error naming the file and what it lacks.
Probes read_probes(const std::filesystem::path& file);

/// Of an encoder's parameters: another one for other weights.
std::string checksum(MaskedAutoencoder mae);

/// A fine-tuned encoder with its head, under the names of timm's VisionTransformer (fc_norm.*,
/// head.*), and its classes in the metadata.
void write_classifier(const std::filesystem::path& file, MaskedAutoencoder mae, Head head,
                      const std::vector<std::string>& classes);
struct Classifier {
  MaskedAutoencoder mae = nullptr;
  Head head = nullptr;
  std::vector<std::string> classes;
};
/// Throws mlo::Error naming the file and what it lacks.
Classifier read_classifier(const std::filesystem::path& file);

}  // namespace mlomae
