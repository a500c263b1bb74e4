// Solvers, methods, sinks and graphs of the user's own: what does not fit is refused by name before
// it is read.
#include "engine/support.h"

#include <mlo/checkpointed.h>
#include <mlo/data/augment.h>
#include <mlo/io/checkpoint.h>
#include <mlo/io/safetensors.h>

using mlo::Error;
using Wrt = mlo::Linearization::Wrt;

namespace {

struct OwnSolver final : mlo::Solver {
  explicit OwnSolver(Tensors solution) : solution(std::move(solution)) {}
  std::string name() const override { return "mine"; }
  Tensors solve(const mlo::LinearSystem&, const Tensors&, mlo::SolveSummary&) override {
    return solution;
  }
  Tensors solution;
};

struct OwnMethod final : mlo::Method {
  using Function = std::function<void(mlo::Visit&)>;
  explicit OwnMethod(Function function) : function(std::move(function)) {}
  std::string name() const override { return "my method"; }
  mlo::Needs needs() const override { return {.second_order = true, .forward_mode = true}; }
  void visit(mlo::Visit& visit) override { function(visit); }
  Function function;
};

/// One hypergradient of ½(w − λ)² under what `method` does.
void sweep(std::unique_ptr<mlo::Method> method) {
  const at::Tensor w = leaf({0.25, 0.5, 0.75}), lambda = leaf({0.5, 0.5, 0.5});
  Engine engine;
  engine.add("low", follow(w, lambda), respond(std::move(method)));
  engine.add("up", lead(lambda, w), sgd());
  engine.step();
}

void visiting(OwnMethod::Function function) {
  sweep(std::make_unique<OwnMethod>(std::move(function)));
}

std::unique_ptr<mlo::Probe> last_step(mlo::Visit& visit) {
  return visit.probe(visit.steps() - 1, mlo::EvaluationPoint::before_step);
}

}  // namespace

TEST_CASE("What a solver of one's own returns is held against the right-hand side",
          "[engine][own]") {
  for (const auto oracle : {mlo::reverse_over_forward_oracle, +[] { return mlo::exact_oracle(); },
                            +[] { return mlo::finite_difference_oracle(); }}) {
    const auto solved_by = [&](Tensors solution) {
      sweep(mlo::implicit(oracle(), std::make_unique<OwnSolver>(std::move(solution))));
    };
    check_refused<Error>([&] { solved_by({}); },
                         {"level 'low'", "the solver 'mine' returned 0 tensors for 1"});
    check_refused<Error>([&] { solved_by({at::ones({7}, at::kDouble)}); },
                         {"level 'low'", "'mine'", "[7]", "[3] on cpu is wanted"});
    check_refused<Error>([&] { solved_by({at::Tensor()}); }, {"'mine'", "an undefined tensor 0"});
    CHECK_NOTHROW(solved_by({at::ones({3}, at::kDouble)}));
  }
}

TEST_CASE("What a method of one's own gives and asks for is held against the visit",
          "[engine][own]") {
  check_refused<Error>(
      [] { visiting([](mlo::Visit& v) { v.subtract({at::ones({8}, at::kDouble)}); }); },
      {"Visit::subtract at level 'low'", "[8]", "[3] on cpu is wanted"});
  check_refused<Error>([] { visiting([](mlo::Visit& v) { v.subtract({}); }); },
                       {"Visit::subtract at level 'low'", "0 tensors for 1"});
  check_refused<Error>([] { visiting([](mlo::Visit& v) { v.step(1); }); },
                       {"level 'low'", "step 1 of 1"});
  check_refused<Error>(
      [] { visiting([](mlo::Visit& v) { v.probe(99, mlo::EvaluationPoint::after_step); }); },
      {"level 'low'", "step 99 of 1"});
  CHECK_NOTHROW(visiting([](mlo::Visit& v) { v.subtract({at::Tensor()}); }));
}

TEST_CASE("What a probe is given is held against the level's parameters", "[engine][own]") {
  const auto refused = [](const char* function, const std::function<void(mlo::Probe&)>& call) {
    check_refused<Error>([&] { visiting([&](mlo::Visit& v) { call(*last_step(v)); }); },
                         {"level 'low'", function, "0 tensors for 1"});
  };
  refused("Probe::shift", [](mlo::Probe& probe) { probe.shift(1.0, {}); });
  refused("Probe::forward_mode_product",
          [](mlo::Probe& probe) { probe.forward_mode_product({}, {}); });
  for (const auto oracle : {mlo::reverse_over_forward_oracle, +[] { return mlo::exact_oracle(); },
                            +[] { return mlo::finite_difference_oracle(); }})
    refused("Linearization::product", [&](mlo::Probe& probe) {
      const Tensors none;
      oracle()->linearize(probe, none)->product({}, Wrt::own);
    });
  check_refused<Error>([] { visiting([](mlo::Visit& v) { last_step(v)->gradient_graph(7, {}); }); },
                       {"level 'low'", "micro-batch 7 of 1"});
}

TEST_CASE("Two probes at a time are refused, and one after the other are not", "[engine][own]") {
  check_refused<Error>(
      [] { visiting([](mlo::Visit& v) { const auto one = last_step(v), two = last_step(v); }); },
      {"level 'low'", "one probe at a time"});
  CHECK_NOTHROW(visiting([](mlo::Visit& v) {
    last_step(v);
    last_step(v);
  }));
}

TEST_CASE("A sink that is none is refused", "[engine][own]") {
  const mlo::SinkFactory none = [](const std::filesystem::path&) {
    return std::unique_ptr<mlo::FileSink>();
  };
  check_refused<mlo::CheckpointError>([&] { mlo::write_checkpoint("here.mlo", State(), none); },
                                      {"here.mlo", "the sink to write it with is null"});
  check_refused<mlo::CheckpointError>([&] { mlo::write_checkpoint("here.mlo", State(), nullptr); },
                                      {"here.mlo", "is null"});
  check_refused<Error>(
      [&] { mlo::write_safetensors("here.safetensors", mlo::Safetensors(), none); },
      {"here.safetensors", "is null"});
}

TEST_CASE("A graph that names levels it does not have is refused", "[engine][own]") {
  mlo::Graph graph;
  check_refused<mlo::ConfigError>([&] { graph.responding(3); }, {"level 3 of 0"});
  check_refused<mlo::ConfigError>([&] { graph.below(0); }, {"level 0 of 0"});
  check_refused<mlo::ConfigError>([&] { graph.cycle({9}); }, {"goal 9 of 0"});
  graph.nodes.resize(2);
  graph.nodes[0].name = "a", graph.nodes[1].name = "b";
  graph.nodes[1].reads = {5};
  check_refused<mlo::ConfigError>([&] { graph.to_string(); }, {"'b' uses level 5 of 2"});
  graph.nodes[1].reads = {0};
  check_refused<mlo::ConfigError>([&] { graph.cycle({1}, {1, 2, 3}); }, {"taken = 3 numbers"});
  CHECK(graph.cycle({1}).size() == 3);
}

TEST_CASE("Functions and tensors that are none are refused in our words", "[engine][own]") {
  check_refused<mlo::ConfigError>([] { mlo::checkpointed({}, at::ones({2}), {}); },
                                  {"mlo::checkpointed: the function is empty"});
  check_refused<Error>([] { mlo::zeros_like({at::Tensor()}); }, {"mlo::zeros_like"});
  float out = 0.0F;
  check_refused<Error>([&] { mlo::augment(at::Tensor(), {.size = 1}, 0, &out); },
                       {"mlo::augment: the image is undefined"});
  check_refused<Error>(
      [&] {
        mlo::augment(at::ones({1, 1}), {.size = 1}, 0, &out);
      },
      {"mlo::augment: the image is Float [1, 1]"});
}
