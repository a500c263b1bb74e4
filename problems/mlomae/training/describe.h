#pragma once

#include "mlomae/run/run_directory.h"
#include "mlomae/training/pretraining.h"

#include <mlo/run_summary.h>
#include <nlohmann/json.hpp>

#include <functional>
#include <string>
#include <vector>

namespace mlomae {

/// Numbers that are trained, by level.
nlohmann::ordered_json parameter_counts(const Models& models);

/// What run.json says of a run before its first step.
nlohmann::ordered_json described(const RunDirectory& directory, const std::string& preset,
                                 const Settings& settings, const Dataset& dataset,
                                 const Models& models);
/// The same of a run that goes on after `taken` steps of the engine: it keeps its beginning, and
/// says what has `changed`. `bad` as in read_log.
nlohmann::ordered_json described_anew(nlohmann::ordered_json record,
                                      const nlohmann::ordered_json& before,
                                      const RunDirectory& directory, int64_t taken,
                                      const std::vector<std::string>& changed,
                                      const std::function<void(const std::string&)>& bad);
/// And after the last one, from `record` as it was at the start and what `earlier` said, where the
/// run has gone on. `steps`: those taken now, of `images_per_step` images.
void describe_end(nlohmann::ordered_json& record, const nlohmann::ordered_json& earlier,
                  const mlo::RunSummary& summary, int64_t steps, int64_t images_per_step);

}  // namespace mlomae
