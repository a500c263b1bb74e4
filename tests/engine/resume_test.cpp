// A run that is resumed is, bit for bit, the run that was never interrupted.
#include <mlo/io/checkpoint.h>
#include "engine/resume_problem.h"

namespace {

constexpr int64_t kSteps = ResumeProblem::kSteps;

/// Losses and metrics of each step.
using Log = std::map<int64_t, std::vector<std::pair<std::string, double>>>;

std::shared_ptr<Watch> logging(Log& log) {
  auto watch = std::make_shared<Watch>();
  watch->step = [&log](const mlo::StepReport& report) { log[report.step] = report.losses(); };
  return watch;
}

}  // namespace

TEST_CASE("A run saved at any step and resumed is the same run bit for bit", "[engine][resume]") {
  const TemporaryFolder folder;
  ResumeProblem whole_problem;
  Engine whole(ResumeProblem::options());
  whole_problem.add_to(whole);
  Log log;
  whole.add(logging(log));
  const auto summary = whole.run();
  CHECK(summary.reason == mlo::RunSummary::Reason::early_stopping);
  REQUIRE(summary.steps == kSteps);
  REQUIRE(log.size() == static_cast<std::size_t>(kSteps));
  const State end = whole.state();

  for (int64_t k = 0; k <= kSteps; ++k) {
    INFO("saved after step " << k);
    const auto file = folder / ("after" + std::to_string(k));
    {
      ResumeProblem problem;
      auto options = ResumeProblem::options(file);
      options.steps = k;
      Engine engine(options);
      problem.add_to(engine);
      engine.run();
      REQUIRE(engine.steps_taken() == k);
    }
    // Into a fresh engine, into one that has gone elsewhere, and without a file.
    for (const int64_t astray : {0, 3}) {
      INFO("into an engine that has taken " << astray << " steps");
      ResumeProblem problem;
      Engine engine(ResumeProblem::options());
      problem.add_to(engine);
      for (int64_t i = 0; i < astray; ++i) engine.step();
      Log rest;
      engine.add(logging(rest));
      engine.load(file);
      CHECK(difference(engine.state(), mlo::read_checkpoint(file)) == "");
      CHECK(engine.run().steps == kSteps);
      CHECK(difference(engine.state(), end) == "");
      CHECK(rest.size() == static_cast<std::size_t>(kSteps - k));
      for (const auto& [step, losses] : rest) CHECK(losses == log.at(step));
    }
  }
}

TEST_CASE("Saving on the way changes nothing", "[engine][resume]") {
  const TemporaryFolder folder;
  const auto end = [&](bool saving) {
    ResumeProblem problem;
    auto options = ResumeProblem::options();
    if (saving) {
      options.checkpoint = folder / "run.mlo";
      options.checkpoint_every = 1;
    }
    Engine engine(options);
    problem.add_to(engine);
    engine.run();
    return engine.state();
  };
  const State saved = end(true);
  CHECK(difference(saved, end(false)) == "");
  CHECK(difference(mlo::read_checkpoint(folder / "run.mlo"), saved) == "");
}

TEST_CASE("What a resume could forget would be seen", "[engine][resume]") {
  // The control: each part of the state matters to the end of this run.
  const auto state_after = [](int64_t steps) {
    ResumeProblem problem;
    auto options = ResumeProblem::options();
    options.steps = steps;
    Engine engine(options);
    problem.add_to(engine);
    engine.run();
    return engine.state();
  };
  const State fresh = state_after(0), middle = state_after(4);
  ResumeProblem problem;
  Engine engine(ResumeProblem::options());
  problem.add_to(engine);
  engine.run();
  const State end = engine.state();
  engine.load_state(middle);
  engine.run();
  REQUIRE(difference(engine.state(), end) == "");

  for (const std::string key :
       {"buffer/0", "level/net/optimizer", "level/head/optimizer", "level/weight/optimizer",
        "level/net/steps", "level/net/data/position", "level/net/data/epoch",
        "level/net/method/warm_start/weight/0", "level/head/batches",
        "level/head/parameter/parameter0", "engine/steps", "early_stopping/best"}) {
    INFO(key);
    State::Value other;
    if (key == "early_stopping/best") {
      other = 0.0;
    } else if (key == "level/net/data/position") {
      other = middle.integer(key) == 0 ? int64_t{4} : int64_t{0};
    } else if (key == "level/net/method/warm_start/weight/0") {
      other = at::zeros_like(middle.tensor(key));
    } else {
      REQUIRE(fresh.has(key));
      other = fresh.values().at(key);
    }
    engine.load_state(with(middle, key, other),
                      {.allow_changed = {"net.schedule"}});  // which is at another step then
    engine.run();
    CHECK(difference(engine.state(), end) != "");
  }
}
