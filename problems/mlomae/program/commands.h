#pragma once

#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace mlomae {

/// What the chosen command does once all arguments are read; returns the exit status. 0: done; 3:
/// stopped and saved.
using Action = std::function<int()>;

void add_pretrain(CLI::App& app, Action& chosen);
void add_evaluate(CLI::App& app, Action& chosen);
void add_report(CLI::App& app, Action& chosen);
void add_masks(CLI::App& app, Action& chosen);
void add_weights(CLI::App& app, Action& chosen);  ///< export and import
void add_use(CLI::App& app, Action& chosen);      ///< embed, predict, nearest
void add_make_data(CLI::App& app, Action& chosen);
void add_config(CLI::App& app, Action& chosen);

}  // namespace mlomae
