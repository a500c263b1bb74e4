#include "mlomae/run/score.h"

#include "mlomae/config/json_text.h"
#include "mlomae/message.h"
#include "mlomae/run/run_directory.h"

#include <mlo/io/checkpoint.h>
#include <mlo/io/file_sink.h>

#include <algorithm>
#include <cmath>

namespace mlomae {

using Json = nlohmann::ordered_json;

double Score::standard_error() const {
  return std::sqrt(accuracy * (1.0 - accuracy) / static_cast<double>(std::max<int64_t>(images, 1)));
}

Json to_json(const Score& s) {
  Json json = {{"kind", s.kind},         {"feature", s.feature},
               {"accuracy", s.accuracy}, {"standard_error", s.standard_error()},
               {"images", s.images},     {"seconds", s.seconds},
               {"settings", s.settings}};
  if (!s.encoder.empty()) json["encoder"] = s.encoder;
  return json;
}

Score score_from_json(const Json& json, const std::string& origin) {
  try {
    Score s;
    s.kind = json.at("kind").get<std::string>();
    s.feature = json.at("feature").get<std::string>();
    s.accuracy = json.at("accuracy").get<double>();
    s.images = json.at("images").get<int64_t>();
    s.seconds = json.at("seconds").get<double>();
    s.settings = json.value("settings", Json::object());
    s.encoder = json.value("encoder", "");
    require<mlo::Error>(s.accuracy >= 0.0 && s.accuracy <= 1.0 && s.images >= 1,
                        "accuracy outside 0 … 1, or no images");
    return s;
  } catch (const std::exception& error) {
    refuse<mlo::Error>("{}: no evaluation ({}); remove it, or evaluate again", origin,
                       error.what());
  }
}

void write_scores(const std::filesystem::path& run, const std::vector<Score>& scores) {
  if (scores.empty()) return;
  const RunDirectory directory{run};
  std::filesystem::create_directories(directory.evaluation());
  Json list = Json::array();
  for (const Score& score : scores) list.push_back(to_json(score));
  const std::string text = json_text(list, 2) + "\n";
  const auto sink = mlo::atomic_file(directory.score(scores.front().kind));
  sink->write(text.data(), text.size());
  sink->commit();
}

std::vector<Score> read_scores(const std::filesystem::path& run) {
  std::vector<Score> scores;
  for (const auto& file : RunDirectory{run}.scores()) {
    const Json list = read_json(file, "remove it, or evaluate again");
    require<mlo::Error>(list.is_array(), "{}: no list of evaluations; remove it, or evaluate again",
                        file.string());
    for (const Json& entry : list) scores.push_back(score_from_json(entry, file.string()));
  }
  return scores;
}

}  // namespace mlomae
