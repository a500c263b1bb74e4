// The ways in which a run ends, and that it goes on from there.
#include <mlo/io/checkpoint.h>
#include "engine/support.h"

#include <chrono>
#include <csignal>
#include <thread>

using Reason = mlo::RunSummary::Reason;

TEST_CASE("A run stops after its steps, and goes on where it stopped", "[engine][run][stop]") {
  Engine engine({.steps = 3});
  engine.add("only", alone(leaf()), sgd());
  const auto watch = std::make_shared<Watch>();
  std::vector<int64_t> seen;
  int starts = 0;
  watch->start = [&](const Engine&) { ++starts; };
  watch->step = [&](const mlo::StepReport& report) {
    seen.push_back(report.step);
    CHECK(report.steps == 3);
    CHECK(report.seconds >= 0.0);
  };
  engine.add(watch);
  engine.step();
  CHECK(seen.empty());  // reports belong to runs
  const auto summary = engine.run();
  CHECK(summary.reason == Reason::steps);
  CHECK(summary.steps == 3);
  CHECK(summary.seconds >= 0.0);
  CHECK(seen == std::vector<int64_t>{2, 3});
  CHECK(engine.run().steps == 3);
  CHECK(seen.size() == 2);
  CHECK(starts == 2);
  CHECK(watch->stops == std::vector<std::string>{"all steps taken", "all steps taken"});
}

TEST_CASE("A run stops when its time is up", "[engine][run][stop]") {
  const at::Tensor x = leaf();
  Engine engine({.steps = 100000, .seconds = 0.05});
  engine.add("only",
             Lambda(x,
                    [=](const Batch&) {
                      std::this_thread::sleep_for(std::chrono::milliseconds(5));
                      return 0.5 * (x - 1.0).square();
                    }),
             sgd());
  const auto summary = engine.run();
  CHECK(summary.reason == Reason::time);
  CHECK(summary.seconds >= 0.05);
  CHECK(summary.steps >= 1);
  CHECK(summary.steps <= 11);
}

namespace {
Engine* to_stop = nullptr;
extern "C" void stop_on_signal(int /*signal*/) { to_stop->request_stop(); }
}  // namespace

TEST_CASE("A request to stop saves, then stops after the current step", "[engine][run][stop]") {
  const TemporaryFolder folder;
  const auto file = folder / "run.mlo";
  const at::Tensor x = leaf();
  Engine engine({.steps = 50, .checkpoint = file});
  std::function<void()> in_loss = [] {};
  engine.add("only",
             Lambda(x,
                    [&](const Batch&) {
                      if (engine.steps_taken() == 4) in_loss();
                      return 0.5 * (x - 1.0).square();
                    }),
             sgd());

  SECTION("from a signal handler") {
    in_loss = [] { std::raise(SIGINT); };
    to_stop = &engine;
    struct Handler {
      void (*before)(int) = std::signal(SIGINT, stop_on_signal);
      ~Handler() { std::signal(SIGINT, before); }
    } const handler;
    CHECK(engine.run().reason == Reason::request);
  }
  SECTION("from a thread") {
    in_loss = [&] { std::thread([&] { engine.request_stop(); }).join(); };
    CHECK(engine.run().reason == Reason::request);
  }
  SECTION("from a callback") {
    const auto watch = std::make_shared<Watch>();
    watch->step = [&](const mlo::StepReport& report) {
      if (report.step == 5) engine.request_stop();
    };
    engine.add(watch);
    CHECK(engine.run().reason == Reason::request);
    CHECK(watch->stops == std::vector<std::string>{"stop requested"});
  }
  CHECK(engine.steps_taken() == 5);
  REQUIRE(std::filesystem::exists(file));
  CHECK(difference(mlo::read_checkpoint(file), engine.state()) == "");

  in_loss = [] {};
  CHECK(engine.run().reason == Reason::steps);  // the request is used up
  CHECK(engine.steps_taken() == 50);
  CHECK(mlo::read_checkpoint(file).integer("engine/steps") == 50);
}

TEST_CASE("What a callback throws ends the run and reaches the caller", "[engine][run][stop]") {
  struct Enough : std::runtime_error {
    using std::runtime_error::runtime_error;
  };
  Engine engine({.steps = 5});
  engine.add("only", alone(leaf()), sgd());
  const auto watch = std::make_shared<Watch>();
  watch->step = [](const mlo::StepReport& report) {
    if (report.step == 2) throw Enough("enough");
  };
  engine.add(watch);
  CHECK_THROWS_AS(engine.run(), Enough);
  CHECK(engine.steps_taken() == 2);
  watch->step = nullptr;
  CHECK(engine.run().steps == 5);
}
