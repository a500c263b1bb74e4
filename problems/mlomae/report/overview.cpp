#include "mlomae/report/overview.h"

#include "mlomae/message.h"

namespace mlomae {
namespace {

constexpr int kPalette = 8, kColours = 2 * kPalette;
// Reconstruction steps that leave an encoder as good as it was initialized.
constexpr int64_t kNoTraining = 2;

}  // namespace

Overview::Overview(const std::vector<Run>& runs) : runs(runs), groups(grouped(runs)) {
  std::map<std::string, int> of_data;
  for (const Group& group : groups) {
    const int number = of_data[group.data]++;
    if (number == 0) data.push_back(group.data);
    colour.push_back(number % kColours);
  }
}

std::string Overview::label(const Group& group) const {
  const auto steps = runs[group.runs.front()].info.value("reconstruction_steps", int64_t{0});
  if (group.method != "imported" && steps > 0 && steps <= kNoTraining)
    return message("encoder as it was initialized ({} of {} {})", group.method, steps,
                   steps == 1 ? "step" : "steps");
  std::string text = group.method;
  for (const auto& [key, value] : group.differing) text += message(", {} {}", key, value);
  return text;
}

std::string Overview::full_label(const Group& group) const {
  return data.size() > 1 ? message("{} on {}", label(group), group.data) : label(group);
}

std::string Overview::swatch(std::size_t group) const {
  return message(
      "<i class=\"c{}\" "
      "style=\"display:inline-block;width:.7rem;height:.7rem;border-radius:50%;"
      "margin-right:.5rem\"></i>",
      colour[group]);
}

std::string colour_styles() {
  std::string css;
  for (int i = 0; i < kColours; ++i) {
    const std::string colour = message("var(--c{})", i % kPalette);
    const bool plain = i < kPalette;
    css += message(
        "polyline.c{0}{{stroke:{1}{2}}}circle.c{0}{{fill:{1}}}i.c{0}{{background:{3}}}\n", i,
        colour, plain ? "" : ";stroke-dasharray:5 3",
        plain ? colour
              : message("repeating-linear-gradient(90deg,{} 0 4px,transparent 4px 6px)", colour));
  }
  return css;
}

}  // namespace mlomae
