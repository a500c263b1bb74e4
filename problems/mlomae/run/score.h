#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace mlomae {

/// One evaluation of a run.
struct Score {
  std::string kind;     ///< linear-probe, knn, finetune or scratch
  std::string feature;  ///< class, mean, or empty
  double accuracy = 0.0;
  int64_t images = 0;  ///< test images
  double seconds = 0.0;
  nlohmann::ordered_json settings = nlohmann::ordered_json::object();
  std::string encoder = {};  ///< checksum of the encoder that was judged; empty: of none (scratch),
                             ///< or not known (older versions)

  /// Of the accuracy, binomial: √(a(1 − a)/n).
  double standard_error() const;
};

nlohmann::ordered_json to_json(const Score& score);
/// Throws mlo::Error naming `origin` and the field.
Score score_from_json(const nlohmann::ordered_json& json, const std::string& origin);

/// RUN/evaluation/KIND.json holds a list: one score a feature.
void write_scores(const std::filesystem::path& run, const std::vector<Score>& scores);
/// Of all files there; empty without the folder.
std::vector<Score> read_scores(const std::filesystem::path& run);

}  // namespace mlomae
