#include "mlomae/config/json.h"
#include "mlomae/config/json_text.h"
#include "mlomae/config/presets.h"
#include "mlomae/message.h"
#include "mlomae/program/choices.h"
#include "mlomae/program/commands.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <memory>

namespace mlomae {

void add_config(CLI::App& app, Action& chosen) {
  struct Arguments {
    SettingChoices choices;
    bool plain = false;
  };
  CLI::App* command = app.add_subcommand(
      "config", "the complete settings as JSON, each explained; --config takes it as it is");
  const auto arguments = std::make_shared<Arguments>();
  arguments->choices.add_to(*command, /*with_method=*/true);
  command->add_flag("--plain", arguments->plain, "values without explanations");
  command->callback([arguments, &chosen] {
    chosen = [arguments] {
      print(stdout, "{}",
            json_text(to_json(arguments->choices.settings(preset("micro")), !arguments->plain), 2));
      return 0;
    };
  });
}

}  // namespace mlomae
