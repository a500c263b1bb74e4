#include "mlomae/message.h"
#include "mlomae/report/chart.h"
#include "mlomae/report/page.h"

namespace mlomae {
namespace {

constexpr std::pair<const char*, const char*> kCharts[] = {
    {"pretrain.reconstruction", "Reconstruction error of masked patches"},
    {"validation/pretrain.knn", "k-nearest neighbours on held-out images"},
    {"validation/pretrain.found", "Object patches among T's heaviest"},
    {"validation/pretrain.weight_found", "Part of the weight that is on the object"},
    {"loss/head", "Loss of the classification head"},
    {"loss/masker", "Loss of the masking network (validation)"},
    {"masker.accuracy", "Accuracy on the masking network's batches"},
    {"pretrain.effective_patches", "Masked patches that count: (Σ w)² / Σ w²"},
    {"pretrain.probability_mean", "T's score: mean"},
    {"pretrain.probability_deviation", "T's score: deviation"},
    {"pretrain.position_deviation", "T's score: deviation by position"}};

// Of all runs on the data that have the series.
std::vector<Line> lines(const Overview& o, const std::string& data, const char* key) {
  std::vector<Line> found;
  for (std::size_t g = 0; g < o.groups.size(); ++g) {
    if (o.groups[g].data != data) continue;
    for (const std::size_t r : o.groups[g].runs) {
      const auto series = o.runs[r].series.find(key);
      if (series == o.runs[r].series.end()) continue;
      Line line{o.runs[r].name(), o.colour[g], {}};
      for (const auto& [step, value] : series->second)
        line.points.emplace_back(static_cast<double>(step), value);
      found.push_back(std::move(line));
    }
  }
  return found;
}

}  // namespace

std::string curves_part(const Overview& o) {
  std::string html = "<h2>Training</h2>";
  for (const std::string& data : o.data) {
    if (o.data.size() > 1) html += message("<h3>{}</h3>", escaped(data));
    html += "<div class=\"legend\">";
    for (std::size_t g = 0; g < o.groups.size(); ++g)
      if (o.groups[g].data == data)
        html += message("<span><i class=\"c{}\"></i>{}</span>", o.colour[g],
                        escaped(o.label(o.groups[g])));
    html += "</div><div class=\"charts\">";
    for (const auto& [key, title] : kCharts) html += chart(title, lines(o, data, key));
    html += "</div>";
  }
  return html +
         "<p class=\"soft\">Over reconstruction steps. T's score is what the masking network gives "
         "a patch, a number from 0 to 1; how often a patch is masked follows from which scores of "
         "an image are the highest, and is below. Lines of many points are smoothed over 3 % of "
         "them; the faint ones are not.</p>";
}

}  // namespace mlomae
