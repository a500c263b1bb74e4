#include "mlomae/report/group_runs.h"

#include "mlomae/config/changes.h"
#include "mlomae/message.h"

#include <algorithm>
#include <cmath>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;
using Setting = std::pair<std::string, std::string>;

bool tells_runs_apart(const std::string& key) {
  return decides_training(key) && key != "run.seed" && key != "run.method";
}

Spread spread(const std::vector<double>& values, double test_error) {
  Spread s{.test_error = test_error, .runs = static_cast<int64_t>(values.size())};
  for (const double v : values) s.mean += v / static_cast<double>(values.size());
  if (values.size() < 2) return s;
  double squares = 0.0;
  for (const double v : values) squares += (v - s.mean) * (v - s.mean);
  s.deviation = std::sqrt(squares / static_cast<double>(values.size() - 1));
  return s;
}

std::string score_name(const Score& score) {
  return score.kind + (score.feature.empty() ? "" : " " + score.feature);
}

// Of two runs with the same settings. Weights that were imported may have been trained with any.
bool one_seed(const Run& a, const Run& b) {
  if (a.method() == "imported")
    return a.info.contains("encoder") && a.info.value("encoder", "") == b.info.value("encoder", "");
  const auto seed = [](const Run& run) {
    const auto section = run.config.find("run");
    return section != run.config.end() && section->is_object() ? section->value("seed", Json())
                                                               : Json();
  };
  return seed(a) == seed(b);
}

// Of each run the settings that tell runs apart, and on each data how many runs have which.
struct Settled {
  explicit Settled(const std::vector<Run>& runs) {
    for (const Run& run : runs) {
      ++runs_of[run.data()];
      std::vector<Setting>& own = of_run.emplace_back();
      for (const auto& setting : setting_texts(run)) {
        if (!tells_runs_apart(setting.first)) continue;
        own.push_back(setting);
        ++runs_with[run.data()][own.back()];
      }
    }
  }
  bool is_usual(const std::string& data, const Setting& setting) const {
    return 2 * runs_with.at(data).at(setting) > runs_of.at(data);
  }

  std::vector<std::vector<Setting>> of_run;
  std::map<std::string, int64_t> runs_of;  // by data
  std::map<std::string, std::map<Setting, int64_t>> runs_with;
};

void measure(Group& group, const std::vector<Run>& runs) {
  std::map<std::string, std::vector<double>> accuracies;
  std::map<std::string, double> errors;
  std::vector<double> seconds, rates, peaks;
  for (const std::size_t r : group.runs) {
    for (const Score& score : runs[r].scores) {
      accuracies[score_name(score)].push_back(score.accuracy);
      errors[score_name(score)] = score.standard_error();
    }
    if (!runs[r].info.contains("images_per_second")) continue;  // it is going on
    seconds.push_back(runs[r].info.value("seconds", 0.0));
    rates.push_back(runs[r].info.value("images_per_second", 0.0));
    peaks.push_back(runs[r].info.value("peak_mib", 0.0));
  }
  for (const auto& [name, values] : accuracies) group.scores[name] = spread(values, errors[name]);
  group.seconds = spread(seconds, 0.0);
  group.images_per_second = spread(rates, 0.0);
  group.peak_mib = spread(peaks, 0.0);
}

}  // namespace

double Spread::standard_error() const {
  return runs < 2 ? test_error : deviation / std::sqrt(static_cast<double>(runs));
}

std::map<std::string, std::string> setting_texts(const Run& run) {
  std::map<std::string, std::string> values;
  for (const auto& [section, fields] : run.config.items())
    if (fields.is_object())
      for (const auto& [name, value] : fields.items())
        values[section + "." + name] = value.is_string() ? value.get<std::string>() : value.dump();
  return values;
}

std::vector<Group> grouped(const std::vector<Run>& runs) {
  const Settled settled(runs);
  std::vector<Group> groups;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const std::string data = runs[r].data(), method = runs[r].method();
    auto same = std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
      return g.data == data && g.method == method &&
             settled.of_run[g.runs.front()] == settled.of_run[r];
    });
    if (same == groups.end()) {
      same = groups.insert(groups.end(), Group());
      same->data = data;
      same->method = method;
      for (const Setting& setting : settled.of_run[r])
        if (!settled.is_usual(data, setting)) same->differing.push_back(setting);
    }
    same->notes.insert(same->notes.end(), runs[r].notes.begin(), runs[r].notes.end());
    const auto twin = std::find_if(same->runs.begin(), same->runs.end(), [&](std::size_t other) {
      return one_seed(runs[other], runs[r]);
    });
    if (twin == same->runs.end())
      same->runs.push_back(r);
    else
      same->notes.push_back(
          message("{} has the seed and the settings of {}, so it is no further seed, and left out",
                  runs[r].path.string(), runs[*twin].path.string()));
  }
  for (Group& group : groups) measure(group, runs);
  return groups;
}

std::vector<bool> winners(const std::vector<Spread>& column) {
  std::vector<bool> won(column.size(), true);
  for (std::size_t i = 0; i < column.size(); ++i)
    for (const Spread& rival : column)
      if (rival.mean - column[i].mean >
          std::hypot(rival.standard_error(), column[i].standard_error()))
        won[i] = false;
  if (std::find(won.begin(), won.end(), false) == won.end()) won.assign(column.size(), false);
  return won;
}

Json report_as_json(const std::vector<Run>& runs) {
  const auto as_json = [](const Spread& s) {
    Json json = {{"mean", s.mean}, {"runs", s.runs}};
    if (s.runs > 1) json["deviation"] = s.deviation;
    return json;
  };
  Json list = Json::array();
  for (const Group& group : grouped(runs)) {
    Json entry = {{"data", group.data},
                  {"method", group.method},
                  {"settings", Json::object()},
                  {"runs", Json::array()},
                  {"scores", Json::object()}};
    for (const auto& [key, value] : group.differing) entry["settings"][key] = value;
    for (const std::size_t r : group.runs) entry["runs"].push_back(runs[r].path.string());
    for (const auto& [name, s] : group.scores) {
      entry["scores"][name] = as_json(s);
      entry["scores"][name]["test_error"] = s.test_error;
    }
    if (!group.notes.empty()) entry["notes"] = group.notes;
    entry["seconds"] = as_json(group.seconds);
    entry["images_per_second"] = as_json(group.images_per_second);
    entry["peak_mib"] = as_json(group.peak_mib);
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace mlomae
