#include "mlomae/report/write_report.h"

#include "mlomae/config/changes.h"
#include "mlomae/report/chart.h"
#include "mlomae/run/pictures.h"

#include <mlo/data/images.h>
#include <mlo/error.h>
#include <mlo/io/checkpoint.h>
#include <mlo/io/file_sink.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <set>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

std::string formatted(const char* format, double value) {
  std::array<char, 48> text = {};
  std::snprintf(text.data(), text.size(), format, value);
  return text.data();
}

std::string base64(const std::vector<uint8_t>& bytes) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t three = 0;
    for (std::size_t j = 0; j < 3; ++j)
      three = three << 8 | (i + j < bytes.size() ? bytes[i + j] : 0U);
    for (std::size_t j = 0; j < 4; ++j)
      text += i + j > bytes.size() ? '=' : kDigits[three >> (18 - 6 * j) & 63U];
  }
  return text;
}

std::string img(const at::Tensor& picture, const std::string& alt) {
  return "<img alt=\"" + escaped(alt) + "\" src=\"data:image/png;base64," +
         base64(mlo::encode_png(picture)) + "\">";
}

// "section.name": value, of a run's settings.
std::map<std::string, std::string> flat(const Json& config) {
  std::map<std::string, std::string> values;
  for (const auto& [section, fields] : config.items())
    if (fields.is_object())
      for (const auto& [name, value] : fields.items())
        values[section + "." + name] = value.is_string() ? value.get<std::string>() : value.dump();
  return values;
}

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

// Whether a run has taken all of its steps.
bool is_finished(const Run& run) {
  return run.info.value("steps_taken", int64_t{0}) >= run.info.value("steps", int64_t{0});
}

std::string score_name(const Score& score) {
  return score.kind + (score.feature.empty() ? "" : " " + score.feature);
}

constexpr const char* kStyle = R"(
:root{color-scheme:light dark;--ink:#20242b;--soft:#5d6673;--line:#dfe3e8;--back:#fff;--card:#f7f8fa;--shade:#0003;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#b8860b;--c5:#56b4e9;--c6:#7f5fc7;--c7:#777}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#9aa4b1;--line:#323842;--back:#14171b;--card:#1c2026;--shade:#fff3;--c0:#4aa8e0;--c1:#f08b45;--c2:#35c79d;--c3:#e39cc4;--c4:#e6b84a;--c5:#8fd0f5;--c6:#a98ff0;--c7:#aaa}}
*{box-sizing:border-box}body{margin:0 auto;padding:2rem 1.2rem 4rem;max-width:1180px;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.7rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.4rem 0 .6rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}h3{font-size:1rem;margin:1.2rem 0 .4rem}
p{max-width:48rem}.soft,figcaption{color:var(--soft);font-size:.87rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums}.wide{overflow-x:auto;background:linear-gradient(90deg,var(--back) 30%,transparent) 0 0/3rem 100% no-repeat local,linear-gradient(270deg,var(--back) 30%,transparent) 100% 0/3rem 100% no-repeat local,linear-gradient(90deg,var(--shade),transparent) 0 0/1rem 100% no-repeat scroll,linear-gradient(270deg,var(--shade),transparent) 100% 0/1rem 100% no-repeat scroll}
td,th{padding:.35rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}th{color:var(--soft);font-weight:600;font-size:.85rem}td:first-child,th:first-child,.left{text-align:left}
.best{font-weight:700}.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(330px,1fr));gap:1rem}figure{margin:0}.chart{background:var(--card);border-radius:8px;padding:.4rem}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}svg .title{fill:var(--ink);font-size:13px;font-weight:600}.grid{stroke:var(--line)}polyline{fill:none;stroke-width:2;stroke-linejoin:round}polyline.raw{stroke-width:1;opacity:.22}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;margin:.4rem 0 .8rem;font-size:.9rem}.legend i{display:inline-block;width:1.1rem;height:.25rem;border-radius:2px;margin-right:.4rem;vertical-align:middle}
img{image-rendering:pixelated;width:64px;height:64px;border-radius:3px;display:block}.masks img{width:clamp(64px,calc((min(100vw,1180px) - 9rem)/var(--columns)),128px);height:auto;aspect-ratio:1}.masks td,.masks th{border:0;padding:2px 3px;text-align:center}.rate img{width:120px;height:120px}.rates{display:flex;flex-wrap:wrap;gap:1.2rem}
summary{cursor:pointer;color:var(--soft)}code{font-size:.85rem}.scale{width:120px;height:10px;border-radius:3px;background:linear-gradient(90deg,#440154,#472c7a,#3b518b,#2c718e,#219090,#27ad81,#5cc863,#aadc32,#fde725)}
@media(max-width:700px){.wide::before{content:"may be wider than the screen: move it sideways";color:var(--soft);font-size:.8rem;position:sticky;left:0}}
@media print{body{max-width:none;padding:0}.chart{break-inside:avoid}}
)";

class Page {
 public:
  Page(const std::vector<Run>& runs, const std::string& title)
      : runs_(runs), groups_(grouped(runs)) {
    html_ =
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
        "content=\"width=device-width,initial-scale=1\"><title>" +
        escaped(title) + "</title><style>" + kStyle;
    for (int i = 0; i < kColours; ++i) {
      const std::string n = std::to_string(i),
                        colour = "var(--c" + std::to_string(i % kPalette) + ")";
      html_ += "polyline.c" + n + "{stroke:" + colour +
               (i < kPalette ? "" : ";stroke-dasharray:5 3") + "}circle.c" + n + "{fill:" + colour +
               "}i.c" + n + "{background:" +
               (i < kPalette
                    ? colour
                    : "repeating-linear-gradient(90deg," + colour + " 0 4px,transparent 4px 6px)") +
               "}\n";
    }
    html_ += "</style></head><body><h1>" + escaped(title) + "</h1>";
    std::map<std::string, int> of_data;
    for (const Group& group : groups_) {
      const int colour = of_data[group.data]++;
      if (colour == 0) data_.push_back(group.data);
      colour_.push_back(colour % kColours);
    }
  }

  std::string finish() {
    intro();
    table();
    curves();
    masks();
    settings();
    return html_ + "</body></html>\n";
  }

 private:
  static constexpr int64_t kNoTraining =
      2;  // reconstruction steps that leave an encoder as good as it was initialized
  static constexpr int kPalette = 8, kColours = 2 * kPalette;  // of kStyle; the second time dashed

  std::string label(const Group& group) const {
    const Run& first = runs_[group.runs.front()];
    const auto steps = first.info.value("reconstruction_steps", int64_t{0});
    if (group.method != "imported" && steps > 0 && steps <= kNoTraining)
      return "encoder as it was initialized (" + group.method + " of " + std::to_string(steps) +
             (steps == 1 ? " step)" : " steps)");
    std::string text = group.method;
    for (const auto& [key, value] : group.differing) text += ", " + key + " " + value;
    return text;
  }

  // Of a group among those of all data.
  std::string full_label(const Group& group) const {
    return label(group) + (data_.size() > 1 ? " on " + group.data : std::string());
  }

  void intro() {
    const Json& info = runs_.front().info;
    html_ += "<p class=\"soft\">" + std::to_string(runs_.size()) +
             (runs_.size() == 1 ? " run" : " runs") + " on ";
    for (std::size_t i = 0; i < data_.size(); ++i)
      html_ += (i == 0 ? "" : ", ") + escaped(data_[i]);
    if (info.contains("processor")) html_ += " · " + escaped(info.value("processor", ""));
    if (info.contains("threads"))
      html_ +=
          " · " + escaped(info["threads"].dump()) + (info["threads"] == 1 ? " thread" : " threads");
    if (info.contains("versions"))
      for (const auto& [name, version] : info["versions"].items())
        html_ += " · " + escaped(name) + " " +
                 escaped(version.is_string() ? version.get<std::string>() : version.dump());
    html_ += "</p>";
  }

  void table() {
    std::vector<std::string> columns;
    std::map<std::string, std::map<std::string, std::vector<Spread>>> scores;  // by data
    std::map<std::string, std::map<std::string, std::vector<std::size_t>>> whose;
    for (std::size_t g = 0; g < groups_.size(); ++g)
      for (const auto& [name, s] : groups_[g].scores) {
        if (!scores.contains(name)) columns.push_back(name);
        scores[name][groups_[g].data].push_back(s);
        whose[name][groups_[g].data].push_back(g);
      }
    std::set<std::pair<std::string, std::size_t>> best;
    for (const auto& [name, by_data] : scores)
      for (const auto& [data, column] : by_data) {
        const std::vector<bool> won = winners(column);
        for (std::size_t i = 0; i < won.size(); ++i)
          if (won[i]) best.emplace(name, whose[name][data][i]);
      }
    html_ += "<h2>Runs</h2><div class=\"wide\"><table><thead><tr><th>method</th>";
    if (data_.size() > 1) html_ += "<th class=\"left\">data</th>";
    html_ += "<th>seeds</th>";
    for (const std::string& c : columns) html_ += "<th>" + escaped(c) + ", %</th>";
    html_ += "<th>minutes</th><th>images/s</th><th>peak MiB</th></tr></thead><tbody>";
    bool alone = false;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const Group& group = groups_[g];
      html_ += "<tr><td>" + swatch(g) + escaped(label(group)) + "</td>";
      if (data_.size() > 1) html_ += "<td class=\"left\">" + escaped(group.data) + "</td>";
      html_ += "<td>" + std::to_string(group.runs.size()) + "</td>";
      for (const std::string& c : columns) {
        const auto found = group.scores.find(c);
        if (found == group.scores.end()) {
          html_ += "<td>–</td>";
          continue;
        }
        const Spread& s = found->second;
        alone |= s.runs < 2;
        html_ += std::string("<td") + (best.contains({c, g}) ? " class=\"best\"" : "") + ">" +
                 formatted("%.1f", 100 * s.mean) +
                 (s.runs < 2 ? " (" + formatted("%.1f", 100 * s.test_error) + ")"
                             : " ± " + formatted("%.1f", 100 * s.deviation)) +
                 "</td>";
      }
      html_ += ended(group.seconds, "%.1f", 60) + ended(group.images_per_second, "%.0f") +
               ended(group.peak_mib, "%.0f") + "</tr>";
    }
    html_ +=
        "</tbody></table></div><p class=\"soft\">Accuracy on the test images. ± is the standard "
        "deviation over seeds";
    if (alone)
      html_ +=
          "; a number in brackets is the standard error of one run's accuracy, from the number of "
          "test images alone";
    if (!best.empty())
      html_ += ". Bold: no other one is better by more than both standard errors together";
    html_ +=
        ". Minutes, images a second and peak memory of pretraining; images are those of the "
        "reconstruction level."
        " Settings are named where they differ from what most runs on these data have.</p>";
    for (const Group& group : groups_)
      for (const std::string& note : group.notes)
        html_ += "<p class=\"soft\">Note: " + escaped(note) + "</p>";
  }

  // A table of so many columns of pictures, which are as large as the page lets them be.
  static std::string pictures_table(int64_t columns) {
    return "<div class=\"wide\"><table class=\"masks\" style=\"--columns:" +
           std::to_string(columns) + "\">";
  }

  static std::string when(const Run& run, const Snapshot& s) {
    const bool last =
        is_finished(run) && s.step >= run.info.value("reconstruction_steps", int64_t{0});
    return last ? "at the end of training (step " + std::to_string(s.step) + ")"
                : "at step " + std::to_string(s.step) + " of " +
                      std::to_string(run.info.value("reconstruction_steps", int64_t{0}));
  }

  static std::string ended(const Spread& s, const char* format, double unit = 1.0) {
    return "<td>" + (s.runs == 0 ? "–" : formatted(format, s.mean / unit)) + "</td>";
  }

  std::string swatch(std::size_t group) const {
    return "<i class=\"c" + std::to_string(colour_[group]) +
           "\" "
           "style=\"display:inline-block;width:.7rem;height:.7rem;border-radius:50%;margin-right:."
           "5rem\"></i>";
  }

  void curves() {
    const std::pair<const char*, const char*> wanted[] = {
        {"pretrain.reconstruction", "Reconstruction error of masked patches"},
        {"validation/pretrain.knn", "k-nearest neighbours on held-out images"},
        {"loss/head", "Loss of the classification head"},
        {"loss/masker", "Loss of the masking network (validation)"},
        {"masker.accuracy", "Accuracy on the masking network's batches"},
        {"pretrain.probability_mean", "T's score: mean"},
        {"pretrain.probability_deviation", "T's score: deviation"},
        {"pretrain.position_deviation", "T's score: deviation by position"}};
    html_ += "<h2>Training</h2>";
    for (const std::string& data : data_) {
      if (data_.size() > 1) html_ += "<h3>" + escaped(data) + "</h3>";
      html_ += "<div class=\"legend\">";
      for (std::size_t g = 0; g < groups_.size(); ++g)
        if (groups_[g].data == data)
          html_ += "<span><i class=\"c" + std::to_string(colour_[g]) + "\"></i>" +
                   escaped(label(groups_[g])) + "</span>";
      html_ += "</div><div class=\"charts\">";
      for (const auto& [key, title] : wanted) {
        std::vector<Line> lines;
        for (std::size_t g = 0; g < groups_.size(); ++g) {
          if (groups_[g].data != data) continue;
          for (const std::size_t r : groups_[g].runs) {
            const auto found = runs_[r].series.find(key);
            if (found == runs_[r].series.end()) continue;
            Line line{runs_[r].name(), colour_[g], {}};
            for (const auto& [step, value] : found->second)
              line.points.emplace_back(static_cast<double>(step), value);
            lines.push_back(std::move(line));
          }
        }
        html_ += chart(title, lines);
      }
      html_ += "</div>";
    }
    html_ +=
        "<p class=\"soft\">Over reconstruction steps. T's score is what the masking network gives "
        "a patch, a number from 0 to 1; "
        "how "
        "often a patch is masked follows from which scores of an image are the highest, and is "
        "below. Lines of many points are "
        "smoothed over 3 % of them; the faint ones "
        "are not.</p>";
  }

  void masks() {
    // Of each group the first run that has pictures.
    std::vector<std::pair<std::size_t, const Run*>> shown;
    for (std::size_t g = 0; g < groups_.size(); ++g)
      for (const std::size_t r : groups_[g].runs)
        if (!runs_[r].snapshots.empty()) {
          shown.emplace_back(g, &runs_[r]);
          break;
        }
    if (shown.empty()) return;

    html_ += "<h2>How often each position is masked</h2><div class=\"rates\">";
    std::vector<Snapshot> last;
    double lowest = 1.0, highest = 0.0;
    for (const auto& [g, run] : shown) {
      last.push_back(read_snapshot(run->snapshots.back()));
      lowest = std::min(lowest, last.back().position_rate.min().item<double>());
      highest = std::max(highest, last.back().position_rate.max().item<double>());
    }
    for (std::size_t i = 0; i < shown.size(); ++i) {
      const std::size_t g = shown[i].first;
      const Snapshot& s = last[i];
      html_ += "<figure class=\"rate\">" +
               img(heat_map((s.position_rate - lowest) / std::max(highest - lowest, 1e-6),
                            s.images.size(2)),
                   "masking rate by position") +
               "<figcaption>" + swatch(g) + escaped(full_label(groups_[g])) + "<br>" +
               formatted("%.2f", s.position_rate.min().item<double>()) + " … " +
               formatted("%.2f", s.position_rate.max().item<double>()) + "<br>" +
               when(*shown[i].second, s) + "</figcaption></figure>";
    }
    html_ += "</div><div class=\"scale\"></div><p class=\"soft\">From " +
             formatted("%.2f", lowest) + " (dark) to " + formatted("%.2f", highest) +
             " (yellow): the part of up to 512 training images whose mask covers the position.</p>";

    html_ += "<h2>Masks as training goes on</h2>";
    for (const auto& [g, run] : shown) {
      std::vector<Snapshot> all;
      const std::size_t count = run->snapshots.size(), columns = std::min<std::size_t>(count, 8);
      for (std::size_t i = 0; i < columns; ++i)
        all.push_back(
            read_snapshot(run->snapshots[columns == 1 ? 0 : i * (count - 1) / (columns - 1)]));
      html_ += "<h3>" + swatch(g) + escaped(full_label(groups_[g])) + "</h3>" +
               pictures_table(static_cast<int64_t>(columns) + 1) + "<thead><tr><th></th>";
      for (const Snapshot& s : all) html_ += "<th>" + std::to_string(s.step) + "</th>";
      html_ += "</tr></thead><tbody>";
      for (int64_t i = 0; i < std::min<int64_t>(all.front().images.size(0), 5); ++i) {
        html_ += "<tr><td>" + img(picture(all.front().images[i]), "image") + "</td>";
        for (const Snapshot& s : all)
          html_ += "<td>" +
                   img(masked_picture(s.images[i], s.masked[i]),
                       "masked at step " + std::to_string(s.step)) +
                   "</td>";
        html_ += "</tr>";
      }
      html_ += "</tbody></table></div>";
    }

    html_ += "<h2>Reconstructions</h2>";
    for (const auto& [g, run] : shown) {
      const Snapshot s = read_snapshot(run->snapshots.back());
      const auto row = [&](const std::string& name, const std::function<at::Tensor(int64_t)>& of) {
        html_ += "<tr><th class=\"left\">" + name + "</th>";
        for (int64_t i = 0; i < s.images.size(0); ++i) html_ += "<td>" + img(of(i), name) + "</td>";
        html_ += "</tr>";
      };
      html_ += "<h3>" + swatch(g) + escaped(full_label(groups_[g])) + ", " + when(*run, s) +
               "</h3>" + pictures_table(s.images.size(0) + 1) + "<tbody>";
      row("image", [&](int64_t i) { return picture(s.images[i]); });
      row("masked", [&](int64_t i) { return masked_picture(s.images[i], s.masked[i]); });
      row("reconstruction", [&](int64_t i) { return picture(s.reconstruction[i]); });
      if (s.probability.defined()) {
        const double low = s.probability.min().item<double>(),
                     high = s.probability.max().item<double>();
        row("T's score", [&](int64_t i) {
          return heat_map((s.probability[i] - low) / std::max(high - low, 1e-6), s.images.size(2));
        });
        html_ += "</tbody></table></div><p class=\"soft\">T's score of a patch, from " +
                 formatted("%.3f", low) + " (dark) to " + formatted("%.3f", high) +
                 " (yellow). It says which patches are masked before others, not how often: that "
                 "is the map by position above.</p>";
      } else {
        html_ += "</tbody></table></div>";
      }
    }
    html_ +=
        "<p class=\"soft\">Masked patches are predicted; visible ones are the image's own. Pixels "
        "are shown with each patch's "
        "own mean and deviation where the model "
        "predicts normalized patches.</p>";
  }

  void settings() {
    html_ += "<h2>Settings</h2>";
    for (const Group& group : groups_) {
      const Run& run = runs_[group.runs.front()];
      html_ += "<details><summary>" + escaped(full_label(group)) + "</summary>";
      if (run.info.contains("command"))
        html_ += "<p><code>" + escaped(run.info.value("command", "")) + "</code></p>";
      html_ += "<div class=\"wide\"><table><tbody>";
      for (const auto& [key, value] : flat(run.config))
        html_ +=
            "<tr><td>" + escaped(key) + "</td><td class=\"left\">" + escaped(value) + "</td></tr>";
      html_ += "</tbody></table></div></details>";
    }
  }

  const std::vector<Run>& runs_;
  const std::vector<Group> groups_;
  std::vector<std::string> data_;  // the data sets, in the order of the groups
  std::vector<int> colour_;        // of each group, counted within its data
  std::string html_;
};

}  // namespace

namespace {

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

}  // namespace

std::vector<Group> grouped(const std::vector<Run>& runs) {
  using Setting = std::pair<std::string, std::string>;
  std::vector<std::vector<Setting>> settings;  // of each run, those that tell runs apart
  std::map<std::string, int64_t> runs_of;      // by data
  std::map<std::string, std::map<Setting, int64_t>> runs_with;
  for (const Run& run : runs) {
    ++runs_of[run.data()];
    std::vector<Setting>& own = settings.emplace_back();
    for (const auto& [key, value] : flat(run.config)) {
      if (!tells_runs_apart(key)) continue;
      own.emplace_back(key, value);
      ++runs_with[run.data()][own.back()];
    }
  }

  std::vector<Group> groups;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const std::string data = runs[r].data(), method = runs[r].method();
    auto same = std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
      return g.data == data && g.method == method && settings[g.runs.front()] == settings[r];
    });
    if (same == groups.end()) {
      same = groups.insert(groups.end(), Group());
      same->data = data;
      same->method = method;
      for (const Setting& setting : settings[r])
        if (2 * runs_with[data][setting] <= runs_of[data]) same->differing.push_back(setting);
    }
    same->notes.insert(same->notes.end(), runs[r].notes.begin(), runs[r].notes.end());
    const auto twin = std::find_if(same->runs.begin(), same->runs.end(), [&](std::size_t other) {
      return one_seed(runs[other], runs[r]);
    });
    if (twin == same->runs.end())
      same->runs.push_back(r);
    else
      same->notes.push_back(runs[r].path.string() + " has the seed and the settings of " +
                            runs[*twin].path.string() + ", so it is no further seed, and left out");
  }
  for (Group& group : groups) {
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
  return groups;
}

double Spread::standard_error() const {
  return runs < 2 ? test_error : deviation / std::sqrt(static_cast<double>(runs));
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

void write_report(const std::vector<Run>& runs, const std::filesystem::path& file,
                  const std::string& title) {
  if (runs.empty()) throw mlo::ConfigError("a report needs at least one run; give its directory");
  const std::string html = Page(runs, title).finish();
  const auto sink = mlo::atomic_file(file);
  sink->write(html.data(), html.size());
  sink->commit();
}

}  // namespace mlomae
