#include "mlo/run_summary.h"

#include "text.h"

#include <algorithm>

namespace mlo {
namespace {

using Row = std::vector<std::string>;

std::string last_solve(const RunSummary::Level& level) {
  const SolveSummary& solve = level.solve;
  if (level.counters.visits == 0 || solve.reason == SolveSummary::Reason::direct) return "";
  const std::string left = solve.residual > 0.0 ? message(", residual {:.2g}", solve.residual) : "";
  return message("{} after {} iterations{}", to_string(solve.reason), solve.iterations, left);
}

// Columns of one width, the first and the last to the left.
std::string table(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (const Row& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool left = i == 0 || i + 1 == row.size();
      line +=
          left ? message("  {:<{}}", row[i], widths[i]) : message("  {:>{}}", row[i], widths[i]);
    }
    text += line.erase(line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

}  // namespace

const char* to_string(RunSummary::Reason reason) {
  switch (reason) {
    case RunSummary::Reason::steps: return "all steps taken";
    case RunSummary::Reason::time: return "time is up";
    case RunSummary::Reason::request: return "stop requested";
    case RunSummary::Reason::early_stopping: return "no improvement";
  }
  return "unknown";
}

std::string RunSummary::to_string() const {
  std::string text = message("{}: {} steps, {:.4g} s\n", mlo::to_string(reason), steps, seconds);
  if (levels.empty()) return text;
  const bool timed = std::any_of(levels.begin(), levels.end(),
                                 [](const Level& level) { return level.counters.seconds > 0.0; });
  std::vector<Row> rows = {{"level", "loss", "steps", "forwards", "backwards", "Hessian", "mixed"}};
  if (timed) rows[0].emplace_back("seconds");
  rows[0].emplace_back("last solve");
  for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
    const Counters& counters = level->counters;
    Row row = {level->name, message("{:.6g}", level->loss)};
    for (const int64_t count : {counters.steps, counters.forwards, counters.backwards,
                                counters.hessian_products, counters.mixed_products})
      row.push_back(message("{}", count));
    if (timed) row.push_back(message("{:.4g}", counters.seconds));
    row.push_back(last_solve(*level));
    rows.push_back(std::move(row));
  }
  return text + table(rows);
}

}  // namespace mlo
