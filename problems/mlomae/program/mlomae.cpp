#include "mlomae/program/commands.h"
#include "mlomae/program/passive_waiting.h"
#include "mlomae/program/standard_streams.h"

#include "mlomae/config/json_text.h"
#include "mlomae/config/nearest.h"
#include "mlomae/message.h"

#include <c10/util/Exception.h>
#include <mlo/error.h>
#include <mlo/version.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <new>
#include <string>
#include <vector>

namespace {

using mlomae::message;

// What the user gave cannot be used, also as a place to write to: 2. There is no memory, nobody to
// print to, or this program is wrong: 1.
constexpr int kBadInput = 2, kFailed = 1;

int say(int status, const std::string& text) {
  mlomae::print(stderr, "mlomae: {}", text);
  return status;
}

// LibTorch's errors are the library's or this program's own fault, but for memory; their first line
// says what.
std::string first_line(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  return text.substr(0, text.find('\n'));
}

int no_memory(const std::string& what) {
  return say(kFailed,
             message("there is not enough memory{}; take a smaller batch with accumulate "
                     "(pretrain.batch, pretrain.accumulate, …), evaluation.batch, or a smaller "
                     "model; --dry-run says what a run needs",
                     what.empty() ? what : message(" ({})", what)));
}

int refuse_command(const CLI::App& app, int count, char** arguments) {
  std::vector<std::string> commands;
  for (const CLI::App* command : app.get_subcommands({})) commands.push_back(command->get_name());
  for (int i = 1; i < count; ++i)
    if (arguments[i][0] != '-')
      return say(
          kBadInput,
          message("there is no command '{}'; did you mean '{}'? There are {} (mlomae --help)",
                  mlomae::abridged(arguments[i]), mlomae::nearest(arguments[i], commands),
                  mlomae::listed(commands)));
  return say(kBadInput, message("give a command: {}. To begin with:  mlomae pretrain --preset demo "
                                "--data FOLDER --out run",
                                mlomae::listed(commands)));
}

// CLI11 says what it did not expect; we also say what is like it.
int refuse_words(const CLI::App& app, const CLI::ParseError& error, int count, char** arguments) {
  const CLI::App* given = app.get_subcommands().empty() ? nullptr : app.get_subcommands().front();
  const bool only_options = std::all_of(arguments + 1, arguments + count,
                                        [](const char* word) { return word[0] == '-'; });
  if (given == nullptr && (count == 1 || !only_options))
    return refuse_command(app, count, arguments);
  std::string hint;
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && given != nullptr) {
    std::vector<std::string> options;
    for (const CLI::Option* option : given->get_options())
      for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
    for (int i = 1; i < count && hint.empty(); ++i) {
      const std::string word =
          std::string(arguments[i]).substr(0, std::string(arguments[i]).find('='));
      if (word.starts_with("--") && given->get_option_no_throw(word) == nullptr)
        hint = message(" ('{}': did you mean '{}'?)", mlomae::abridged(word),
                       mlomae::nearest(word, options));
    }
  }
  return say(kBadInput, message("{}{}; see mlomae {}--help", mlomae::abridged(error.what(), 300),
                                hint, given != nullptr ? given->get_name() + " " : ""));
}

int run(int count, char** arguments) {
  CLI::App app(
      "Masked autoencoders whose masks are learned from a classifier's validation loss (MLO-MAE), "
      "and their baselines.",
      "mlomae");
  app.set_version_flag("--version", mlo::version());
  app.require_subcommand(1);
  app.footer(
      "Example:\n"
      "  mlomae pretrain --preset micro --data photos --set model.image_size=64 --out run\n"
      "  mlomae evaluate linear-probe,knn run\n"
      "  mlomae report run -o report.html\n"
      "  mlomae embed run photos -o features.csv\n"
      "Each command's options: mlomae COMMAND --help. All settings: mlomae config.\n"
      "Status: 0 done; 1 no memory, or nothing could be printed; 2 input that cannot be used, or "
      "files that cannot be written; 3 "
      "stopped and saved.");
  mlomae::Action chosen;
  mlomae::add_pretrain(app, chosen);
  mlomae::add_evaluate(app, chosen);
  mlomae::add_report(app, chosen);
  mlomae::add_masks(app, chosen);
  mlomae::add_use(app, chosen);
  mlomae::add_weights(app, chosen);
  mlomae::add_make_data(app, chosen);
  mlomae::add_config(app, chosen);
  try {
    app.parse(count, arguments);
    return chosen();
  } catch (const CLI::ParseError& error) {
    return error.get_exit_code() == 0 ? app.exit(error)  // --help, --version
                                      : refuse_words(app, error, count, arguments);
  } catch (const mlo::Error& error) {
    return say(kBadInput, error.what());
  } catch (const std::filesystem::filesystem_error& error) {
    return say(kBadInput, message("{}: {}; check the path and who may use it",
                                  error.path1().string(), error.code().message()));
  } catch (const std::bad_alloc&) {
    return no_memory("");
  } catch (const c10::OutOfMemoryError& error) {
    return no_memory(first_line(error));
  } catch (const c10::Error& error) {
    const std::string line = first_line(error);
    return line.find("allocate memory") != std::string::npos
               ? no_memory(line)
               : say(kFailed, "internal error: " + line);
  } catch (const std::exception& error) {
    return say(kFailed, std::string("internal error: ") + error.what());
  }
}

}  // namespace

int main(int count, char** arguments) {
  mlomae::guard_standard_streams();
  mlomae::wait_passively(arguments);
  const int status = run(count, arguments);
  return mlomae::printed() || status != 0 ? status : kFailed;
}
