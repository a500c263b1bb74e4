#include "mlomae/config/json_text.h"
#include "mlomae/message.h"
#include "mlomae/program/commands.h"
#include "mlomae/report/write_report.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <memory>

namespace mlomae {

void add_report(CLI::App& app, Action& chosen) {
  struct Arguments {
    std::vector<std::filesystem::path> runs;
    std::filesystem::path out = "report.html";
    std::string title = "MLO-MAE";
    bool json = false;
  };
  CLI::App* command =
      app.add_subcommand("report", "several runs side by side in one HTML file that opens offline");
  const auto arguments = std::make_shared<Arguments>();
  command
      ->add_option("runs", arguments->runs,
                   "directories of runs; those that differ by their seed only are averaged")
      ->required();
  command->add_option("-o,--out", arguments->out, "the file")->capture_default_str();
  command->add_option("--title", arguments->title, "its title")->capture_default_str();
  command->add_flag("--json", arguments->json, "print the table as JSON");
  command->callback([arguments, &chosen] {
    chosen = [arguments] {
      const std::vector<Run> runs = read_runs(arguments->runs);
      std::size_t shown = 0;
      for (const Group& group : grouped(runs)) {
        shown += group.runs.size();
        for (const std::string& note : group.notes) print(stderr, "note: {}", note);
      }
      if (arguments->json) print(stdout, "{}", json_text(report_as_json(runs)));
      write_report(runs, arguments->out, arguments->title);
      if (!arguments->json) print(stdout, "{}: {} runs", arguments->out.string(), shown);
      return 0;
    };
  });
}

}  // namespace mlomae
