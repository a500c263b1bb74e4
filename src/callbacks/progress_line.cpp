#include "callbacks/progress_line.h"
#include "text.h"

#include <algorithm>
#include <cmath>

namespace mlo {
namespace {

std::string duration(double seconds) {
  if (!(seconds >= 0.0 && seconds < 1e9)) return "-:--";
  const auto total = std::llround(seconds);
  if (total < 3600) return message("{}:{:02}", total / 60, total % 60);
  return message("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

bool continues(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}  // inside a character of UTF-8

std::size_t columns_of(const std::string& text) {
  return text.size() - static_cast<std::size_t>(std::count_if(text.begin(), text.end(), continues));
}

void cut(std::string& text, std::size_t columns) {
  std::size_t end = 0;
  while (end < text.size() && (columns > 0 || continues(text[end])))
    if (!continues(text[end++])) --columns;
  text.resize(end);
}

}  // namespace

std::string progress_line(const Progress& progress, int columns) {
  constexpr std::size_t kNarrowest = 10;
  constexpr std::size_t kWidest = 30;
  const auto room = static_cast<std::size_t>(std::max(columns, 0));
  const double done =
      progress.steps > 0
          ? std::clamp(static_cast<double>(progress.step) / static_cast<double>(progress.steps),
                       0.0, 1.0)
          : 1.0;

  std::string text = message("{}/{}  {}%  eta {}", progress.step, progress.steps,
                             static_cast<int>(100.0 * done), duration(progress.seconds_left));
  if (!progress.unit.empty() && progress.rate >= 0.0 && std::isfinite(progress.rate)) {
    const std::string item = progress.rate < 10.0
                                 ? message("  {:.2g} {}/s", progress.rate, progress.unit)
                                 : message("  {:.0f} {}/s", progress.rate, progress.unit);
    if (columns_of(text) + columns_of(item) <= room) text += item;
  }
  const char* separator = "  ";
  for (const auto& [level, loss] : progress.losses) {
    std::string item = message("{}{} {:.3g}", separator, level, loss);
    for (char& c : item)
      if (static_cast<unsigned char>(c) < ' ')
        c = '?';  // a line feed in a name would break the line
    if (columns_of(text) + columns_of(item) > room) break;
    text += item;
    separator = " ";
  }

  const std::size_t around = columns_of(text) + 3;  // "[", "] "
  if (around + kNarrowest <= room) {
    const std::size_t width = std::min(room - around, kWidest);
    std::string bar(static_cast<std::size_t>(done * static_cast<double>(width)), '=');
    if (bar.size() < width) bar += '>';
    bar.resize(width, ' ');
    text = message("[{}] {}", bar, text);
  }
  cut(text, room);
  return text;
}

void RecentRate::add(int64_t step, double seconds) {
  constexpr double kMemory = 10.0;
  if (started_) {
    const double passed = seconds - last_seconds_;
    const double kept = std::exp(-passed / kMemory);
    steps_ = kept * steps_ + static_cast<double>(step - last_step_);
    seconds_ = kept * seconds_ + passed;
  }
  started_ = true;
  last_step_ = step;
  last_seconds_ = seconds;
}

}  // namespace mlo
