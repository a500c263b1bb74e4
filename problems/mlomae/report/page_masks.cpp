#include "mlomae/message.h"
#include "mlomae/report/chart.h"
#include "mlomae/report/page.h"
#include "mlomae/run/pictures.h"

#include <mlo/data/image_file.h>

#include <algorithm>

namespace mlomae {
namespace {

// A group, and its first run that has pictures.
struct Shown {
  std::size_t group;
  const Run* run;
};

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
  return message("<img alt=\"{}\" src=\"data:image/png;base64,{}\">", escaped(alt),
                 base64(mlo::encode_png(picture)));
}

double lowest(const at::Tensor& values) { return values.min().item<double>(); }
double highest(const at::Tensor& values) { return values.max().item<double>(); }

// Values as a map of size × size pixels, from dark at `low` to yellow at `high`.
at::Tensor scaled_map(const at::Tensor& values, double low, double high, int64_t size) {
  return heat_map((values - low) / std::max(high - low, 1e-6), size);
}

std::string title(const Overview& o, const Shown& shown) {
  return o.swatch(shown.group) + escaped(o.full_label(o.groups[shown.group]));
}

std::string when(const Run& run, const Snapshot& s) {
  const auto steps = run.info.value("reconstruction_steps", int64_t{0});
  const bool is_finished =
      run.info.value("steps_taken", int64_t{0}) >= run.info.value("steps", int64_t{0});
  return is_finished && s.step >= steps ? message("at the end of training (step {})", s.step)
                                        : message("at step {} of {}", s.step, steps);
}

// A table of so many columns of pictures, which are as large as the page lets them be.
std::string pictures_table(std::size_t columns) {
  return message("<div class=\"wide\"><table class=\"masks\" style=\"--columns:{}\">", columns);
}

std::string positions(const Overview& o, const std::vector<Shown>& all) {
  std::vector<Snapshot> last;
  double low = 1.0, high = 0.0;
  for (const Shown& shown : all) {
    last.push_back(read_snapshot(shown.run->snapshots.back()));
    low = std::min(low, lowest(last.back().position_rate));
    high = std::max(high, highest(last.back().position_rate));
  }
  std::string html = "<h2>How often each position is masked</h2><div class=\"rates\">";
  for (std::size_t i = 0; i < all.size(); ++i) {
    const at::Tensor& rate = last[i].position_rate;
    html += message(
        "<figure class=\"rate\">{}<figcaption>{}<br>{:.2f} … {:.2f}<br>{}</figcaption></figure>",
        img(scaled_map(rate, low, high, last[i].images.size(2)), "masking rate by position"),
        title(o, all[i]), lowest(rate), highest(rate), when(*all[i].run, last[i]));
  }
  return html + message(
                    "</div><div class=\"scale\"></div><p class=\"soft\">From {:.2f} (dark) to "
                    "{:.2f} (yellow): the part of up to 512 training images whose mask covers "
                    "the position.</p>",
                    low, high);
}

// A run's masks, and what its masker says, at up to eight of its snapshots.
std::string over_time(const Overview& o, const Shown& shown) {
  std::vector<Snapshot> all;
  const std::size_t count = shown.run->snapshots.size(), columns = std::min<std::size_t>(count, 8);
  for (std::size_t i = 0; i < columns; ++i)
    all.push_back(
        read_snapshot(shown.run->snapshots[columns == 1 ? 0 : i * (count - 1) / (columns - 1)]));
  std::string html =
      message("<h3>{}</h3>{}<thead><tr><th></th>", title(o, shown), pictures_table(columns + 1));
  for (const Snapshot& s : all) html += message("<th>{}</th>", s.step);
  html += "</tr></thead><tbody>";
  const Snapshot& first = all.front();
  const int64_t size = first.images.size(2);
  for (int64_t i = 0; i < std::min<int64_t>(first.images.size(0), 5); ++i) {
    html += message("<tr><td>{}</td>", img(picture(first.images[i]), "image"));
    for (const Snapshot& s : all)
      html += message("<td>{}</td>", img(masked_picture(s.images[i], s.masked[i]),
                                         message("masked at step {}", s.step)));
    if (first.probability.defined()) {
      html += message("</tr><tr><td>{}</td>",
                      first.map.defined() ? img(heat_map(first.map[i], size), "map") : "");
      for (const Snapshot& s : all)
        html += message("<td>{}</td>",
                        img(scaled_map(s.probability[i], 0.0, highest(s.probability[i]), size),
                            message("T at step {}", s.step)));
    }
    html += "</tr>";
  }
  html += "</tbody></table></div>";
  if (!first.probability.defined()) return html;
  return html + message(
                    "<p class=\"soft\">Above: image and masks. Below: {}T's scores, from 0 "
                    "(dark) to the image's highest (yellow).</p>",
                    !first.map.defined() ? ""
                    : shown.run->info.value("method", "") == "oracle"
                        ? "the map, and "
                        : "the map that T is judged by and never sees, and ");
}

std::string reconstructions(const Overview& o, const Shown& shown) {
  const Snapshot s = read_snapshot(shown.run->snapshots.back());
  const auto row = [&](const std::string& name, const std::function<at::Tensor(int64_t)>& of) {
    std::string html = message("<tr><th class=\"left\">{}</th>", name);
    for (int64_t i = 0; i < s.images.size(0); ++i) html += message("<td>{}</td>", img(of(i), name));
    return html + "</tr>";
  };
  std::string html = message("<h3>{}, {}</h3>{}<tbody>", title(o, shown), when(*shown.run, s),
                             pictures_table(static_cast<std::size_t>(s.images.size(0)) + 1));
  html += row("image", [&](int64_t i) { return picture(s.images[i]); });
  html += row("masked", [&](int64_t i) { return masked_picture(s.images[i], s.masked[i]); });
  html += row("reconstruction", [&](int64_t i) { return picture(s.reconstruction[i]); });
  if (!s.probability.defined()) return html + "</tbody></table></div>";
  const double low = lowest(s.probability), high = highest(s.probability);
  html += row("T's score",
              [&](int64_t i) { return scaled_map(s.probability[i], low, high, s.images.size(2)); });
  return html + message(
                    "</tbody></table></div><p class=\"soft\">T's score of a patch, from {:.3f} "
                    "(dark) to {:.3f} (yellow): what it counts in the loss, or which are masked "
                    "before others (masker.weighs, masker.selects). How often a patch is masked "
                    "is the map by position above.</p>",
                    low, high);
}

}  // namespace

std::string masks_part(const Overview& o) {
  std::vector<Shown> all;
  for (std::size_t g = 0; g < o.groups.size(); ++g)
    for (const std::size_t r : o.groups[g].runs)
      if (!o.runs[r].snapshots.empty()) {
        all.push_back({g, &o.runs[r]});
        break;
      }
  if (all.empty()) return {};
  std::string html = positions(o, all) + "<h2>Masks as training goes on</h2>";
  for (const Shown& shown : all) html += over_time(o, shown);
  html += "<h2>Reconstructions</h2>";
  for (const Shown& shown : all) html += reconstructions(o, shown);
  return html +
         "<p class=\"soft\">Masked patches are predicted; visible ones are the image's own. Pixels "
         "are shown with each patch's own mean and deviation where the model predicts normalized "
         "patches.</p>";
}

}  // namespace mlomae
