#include "mlomae/program/commands.h"

#include <mlo/error.h>
#include <mlo/version.h>
#include <CLI/CLI.hpp>

#include <cstdio>

int main(int argc, char** argv) {
  CLI::App app("Masked autoencoders whose masks are learned from a classifier's validation loss (MLO-MAE), and their baselines.",
               "mlomae");
  app.set_version_flag("--version", mlo::version());
  app.require_subcommand(1);
  mlomae::Action chosen;
  mlomae::add_pretrain(app, chosen);
  mlomae::add_evaluate(app, chosen);
  mlomae::add_report(app, chosen);
  mlomae::add_masks(app, chosen);
  mlomae::add_weights(app, chosen);
  mlomae::add_config(app, chosen);
  try {
    app.parse(argc, argv);
    return chosen();
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;  // 0: --help, --version
  } catch (const mlo::Error& error) {
    std::fprintf(stderr, "mlomae: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mlomae: %s\n", error.what());
    return 1;
  }
}
