#include "mlo/callback.h"

#include "mlo/engine.h"

namespace mlo {

std::vector<std::pair<std::string, double>> StepReport::losses() const {
  std::vector<std::pair<std::string, double>> losses;
  for (const std::string& level : engine.level_names())
    losses.emplace_back(level, engine.loss(level));
  return losses;
}

std::vector<std::pair<std::string, double>> StepReport::metrics() const { return engine.metrics(); }

}  // namespace mlo
