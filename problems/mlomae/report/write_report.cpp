#include "mlomae/report/write_report.h"

#include "mlomae/message.h"
#include "mlomae/report/chart.h"
#include "mlomae/report/page.h"

#include <mlo/io/file_sink.h>

namespace mlomae {

void write_report(const std::vector<Run>& runs, const std::filesystem::path& file,
                  const std::string& title) {
  require(!runs.empty(), "a report needs at least one run; give its directory");
  const Overview overview(runs);
  const std::string html =
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>" +
      escaped(title) + "</title><style>" + style_sheet() + colour_styles() +
      "</style></head><body><h1>" + escaped(title) + "</h1>" + runs_part(overview) +
      curves_part(overview) + masks_part(overview) + settings_part(overview) + "</body></html>\n";
  const auto sink = mlo::atomic_file(file);
  sink->write(html.data(), html.size());
  sink->commit();
}

}  // namespace mlomae
