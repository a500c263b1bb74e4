#include "mlomae/message.h"
#include "mlomae/report/chart.h"
#include "mlomae/report/page.h"

#include <set>

namespace mlomae {
namespace {

using Json = nlohmann::ordered_json;

std::string intro(const Overview& o) {
  const Json& info = o.runs.front().info;
  std::string html =
      message("<p class=\"soft\">{} {} on ", o.runs.size(), o.runs.size() == 1 ? "run" : "runs");
  for (std::size_t i = 0; i < o.data.size(); ++i) html += (i == 0 ? "" : ", ") + escaped(o.data[i]);
  if (info.contains("processor")) html += " · " + escaped(info.value("processor", ""));
  if (info.contains("threads"))
    html += message(" · {} {}", escaped(info["threads"].dump()),
                    info["threads"] == 1 ? "thread" : "threads");
  if (info.contains("versions"))
    for (const auto& [name, version] : info["versions"].items())
      html += message(" · {} {}", escaped(name),
                      escaped(version.is_string() ? version.get<std::string>() : version.dump()));
  return html + "</p>";
}

// The scores of the groups by name, and which of them are the best on their data.
struct Scores {
  explicit Scores(const std::vector<Group>& groups) {
    std::map<std::string, std::map<std::string, std::vector<std::size_t>>> whose;  // by data
    for (std::size_t g = 0; g < groups.size(); ++g)
      for (const auto& [name, s] : groups[g].scores) {
        if (!whose.contains(name)) columns.push_back(name);
        whose[name][groups[g].data].push_back(g);
      }
    for (const auto& [name, by_data] : whose)
      for (const auto& [data, numbers] : by_data) {
        std::vector<Spread> column;
        for (const std::size_t g : numbers) column.push_back(groups[g].scores.at(name));
        const std::vector<bool> won = winners(column);
        for (std::size_t i = 0; i < won.size(); ++i)
          if (won[i]) best.emplace(name, numbers[i]);
      }
  }
  std::vector<std::string> columns;
  std::set<std::pair<std::string, std::size_t>> best;
};

std::string cell(const Spread& s, bool is_best) {
  return message("<td{}>{:.1f}{}</td>", is_best ? " class=\"best\"" : "", 100 * s.mean,
                 s.runs < 2 ? message(" ({:.1f})", 100 * s.test_error)
                            : message(" ± {:.1f}", 100 * s.deviation));
}

std::string ended(const Spread& s, int digits, double unit = 1.0) {
  return s.runs == 0 ? "<td>–</td>" : message("<td>{:.{}f}</td>", s.mean / unit, digits);
}

std::string row(const Overview& o, std::size_t g, const Scores& scores) {
  const Group& group = o.groups[g];
  std::string html = message("<tr><td>{}{}</td>", o.swatch(g), escaped(o.label(group)));
  if (o.data.size() > 1) html += message("<td class=\"left\">{}</td>", escaped(group.data));
  html += message("<td>{}</td>", group.runs.size());
  for (const std::string& name : scores.columns) {
    const auto found = group.scores.find(name);
    html += found == group.scores.end() ? "<td>–</td>"
                                        : cell(found->second, scores.best.contains({name, g}));
  }
  return html + ended(group.seconds, 1, 60) + ended(group.images_per_second, 0) +
         ended(group.peak_mib, 0) + "</tr>";
}

std::string explanation(const Overview& o, const Scores& scores) {
  bool alone = false;
  for (const Group& group : o.groups)
    for (const auto& [name, s] : group.scores) alone |= s.runs < 2;
  std::string html =
      "<p class=\"soft\">Accuracy on the test images. ± is the standard deviation over seeds";
  if (alone)
    html +=
        "; a number in brackets is the standard error of one run's accuracy, from the number of "
        "test images alone";
  if (!scores.best.empty())
    html += ". Bold: no other one is better by more than both standard errors together";
  return html +
         ". Minutes, images a second and peak memory of pretraining; images are those of the "
         "reconstruction level. Settings are named where they differ from what most runs on these "
         "data have.</p>";
}

}  // namespace

std::string runs_part(const Overview& o) {
  const Scores scores(o.groups);
  std::string html =
      intro(o) + "<h2>Runs</h2><div class=\"wide\"><table><thead><tr><th>method</th>";
  if (o.data.size() > 1) html += "<th class=\"left\">data</th>";
  html += "<th>seeds</th>";
  for (const std::string& name : scores.columns) html += message("<th>{}, %</th>", escaped(name));
  html += "<th>minutes</th><th>images/s</th><th>peak MiB</th></tr></thead><tbody>";
  for (std::size_t g = 0; g < o.groups.size(); ++g) html += row(o, g, scores);
  html += "</tbody></table></div>" + explanation(o, scores);
  for (const Group& group : o.groups)
    for (const std::string& note : group.notes)
      html += message("<p class=\"soft\">Note: {}</p>", escaped(note));
  return html;
}

std::string settings_part(const Overview& o) {
  std::string html = "<h2>Settings</h2>";
  for (const Group& group : o.groups) {
    const Run& run = o.runs[group.runs.front()];
    html += message("<details><summary>{}</summary>", escaped(o.full_label(group)));
    if (run.info.contains("command"))
      html += message("<p><code>{}</code></p>", escaped(run.info.value("command", "")));
    html += "<div class=\"wide\"><table><tbody>";
    for (const auto& [key, value] : setting_texts(run))
      html +=
          message("<tr><td>{}</td><td class=\"left\">{}</td></tr>", escaped(key), escaped(value));
    html += "</tbody></table></div></details>";
  }
  return html;
}

}  // namespace mlomae
