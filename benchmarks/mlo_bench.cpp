// mlo-bench: accuracy is the tests' business, this measures time, memory and passes. Repeats of all
// contestants are interleaved, so that a machine that slows down slows all of them.
#include "case.h"
#include "commit.h"

#include <ATen/ATen.h>
#include <mlo/version.h>
#include <torch/types.h>
#include <torch/version.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>

namespace bench {

mlo::Counters total_counters(const mlo::Engine& engine) {
  mlo::Counters sum;
  for (const auto& name : engine.level_names()) {
    const mlo::Counters& level = engine.counters(name);
    sum.steps += level.steps;
    sum.forwards += level.forwards;
    sum.backwards += level.backwards;
    sum.visits += level.visits;
    sum.hessian_products += level.hessian_products;
    sum.mixed_products += level.mixed_products;
  }
  return sum;
}

Contestant engine_contestant(std::string method, std::shared_ptr<mlo::Engine> engine) {
  engine->build();
  return {std::move(method),
          [engine](int64_t n) {
            for (int64_t i = 0; i < n; ++i) engine->step();
          },
          [engine] { return total_counters(*engine); }};
}

double dot(const mlo::Tensors& a, const mlo::Tensors& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].defined() && b[i].defined())
      sum += (a[i].to(at::kDouble) * b[i].to(at::kDouble)).sum().item<double>();
  return sum;
}

double cosine(const mlo::Tensors& a, const mlo::Tensors& b) {
  return dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
}

namespace {

constexpr int64_t kWarmUp = 9;  // outer steps

std::vector<Case> all_cases(const MlomaeShape& shape) {
  std::vector<Case> cases = {logistic_case(), cnn_case(), images_case(), mlomae_case(shape)};
  cases.push_back(mlomae_case({.image = 8,
                               .patch = 4,
                               .dim = 16,
                               .depth = 2,
                               .heads = 2,
                               .decoder_dim = 8,
                               .decoder_depth = 1,
                               .decoder_heads = 2,
                               .batch = 4,
                               .small = true}));
  for (int64_t layers = 1; layers <= 8; ++layers) cases.push_back(paths_case(layers));
  return cases;
}

// Most resident memory since the last call, in MiB; 0 where the system does not say.
double peak_mib() {
  std::ifstream status("/proc/self/status");
  double peak = 0.0;
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0) peak = std::stod(line.substr(6)) / 1024.0;
  std::ofstream("/proc/self/clear_refs") << "5";
  return peak;
}

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown";
}

struct Measurement {
  std::vector<double> seconds;  // an outer step, by repeat
  double peak = 0.0;
  nlohmann::json counters;
};

nlohmann::json counters_of(const mlo::Counters& before, const mlo::Counters& after, int64_t steps) {
  const auto each = [steps](int64_t from, int64_t to) {
    return static_cast<double>(to - from) / static_cast<double>(steps);
  };
  return {{"forwards", each(before.forwards, after.forwards)},
          {"backwards", each(before.backwards, after.backwards)},
          {"visits", each(before.visits, after.visits)},
          {"hessian_products", each(before.hessian_products, after.hessian_products)},
          {"mixed_products", each(before.mixed_products, after.mixed_products)}};
}

int run(const Case& which, const std::string& method, int repeats, bool json) {
  std::vector<Contestant> contestants = which.contestants(method);
  if (!method.empty())
    std::erase_if(contestants, [&](const Contestant& c) {
      return c.method != method && c.method != method + " by hand";
    });
  if (contestants.empty()) {
    std::cerr << "case '" << which.name << "' has no method '" << method << "'; it has";
    for (const auto& c : which.contestants("")) std::cerr << " '" << c.method << "'";
    std::cerr << "\n";
    return 2;
  }
  std::vector<Measurement> measured(contestants.size());
  // Warm-up: past the visits 2, 4 and 8, at which differences look at a second radius.
  for (auto& contestant : contestants)
    contestant.steps(std::max<int64_t>(which.steps_per_repeat, kWarmUp));
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (std::size_t i = 0; i < contestants.size(); ++i) {
      const mlo::Counters before =
          contestants[i].counters ? contestants[i].counters() : mlo::Counters();
      peak_mib();
      const auto start = std::chrono::steady_clock::now();
      contestants[i].steps(which.steps_per_repeat);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      measured[i].seconds.push_back(took.count() / static_cast<double>(which.steps_per_repeat));
      measured[i].peak = std::max(measured[i].peak, peak_mib());
      if (contestants[i].counters)
        measured[i].counters =
            counters_of(before, contestants[i].counters(), which.steps_per_repeat);
    }
  }
  for (std::size_t i = 0; i < contestants.size(); ++i) {
    auto& seconds = measured[i].seconds;
    std::sort(seconds.begin(), seconds.end());
    const double median = seconds[seconds.size() / 2];
    if (json) {
      const nlohmann::json line = {
          {"case", which.name},
          {"method", contestants[i].method},
          {"threads", at::get_num_threads()},
          {"seconds", {{"median", median}, {"min", seconds.front()}, {"max", seconds.back()}}},
          {"repeats", repeats},
          {"steps_per_repeat", which.steps_per_repeat},
          {"peak_mib", measured[i].peak},
          {"counters", measured[i].counters},
          {"gflop_per_second", contestants[i].flop / median * 1e-9},
          {"commit", kCommit},
          {"build", kBuild},
          {"mlo", mlo::version()},
          {"torch", TORCH_VERSION},
          {"processor", processor()}};
      std::cout << line.dump() << std::endl;
    } else {
      std::printf("%-10s %-28s %10.1f us an outer step (min %.1f, max %.1f), peak %.0f MiB\n",
                  which.name.c_str(), contestants[i].method.c_str(), median * 1e6,
                  seconds.front() * 1e6, seconds.back() * 1e6, measured[i].peak);
    }
  }
  return 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  CLI::App app{"Time, memory and passes of mlo's methods"};
  app.require_subcommand(1);
  auto* list = app.add_subcommand("list", "The cases there are");
  auto* run = app.add_subcommand("run", "Measure a case");
  auto* figures = app.add_subcommand("figures", "Hypergradients of MLO-MAE: no times, one thread");
  std::string which_figures;
  figures
      ->add_option("figures", which_figures,
                   "accuracy: approximations beside the exact one, on Fashion-MNIST; signal: "
                   "those of independent batches")
      ->required()
      ->check(CLI::IsMember({"accuracy", "signal"}));
  std::string data = "/usr/share/datasets/fashion-mnist";
  std::vector<std::string> assignments;
  int64_t masker_steps = 200;
  figures->add_option("--data", data, "signal: the images, as for mlomae pretrain")
      ->capture_default_str();
  figures->add_option("--set", assignments, "signal: a setting of mlomae, section.name=value");
  figures->add_option("--steps", masker_steps, "signal: steps of the masker")
      ->check(CLI::Range(10, 1000000))
      ->capture_default_str();
  std::string name, method;
  int threads = 1, repeats = 11;
  bool json = false;
  run->add_option("case", name, "A case of `list`, or `all`")->required();
  run->add_option("--method", method, "Only this method, and its counterpart by hand");
  run->add_option("--threads", threads, "Threads of LibTorch")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  run->add_option("--repeats", repeats, "Interleaved repeats")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  run->add_flag("--json", json, "A line of JSON for each measurement");
  bench::MlomaeShape shape;
  const std::pair<const char*, int64_t*> sizes[] = {{"--image", &shape.image},
                                                    {"--patch", &shape.patch},
                                                    {"--dim", &shape.dim},
                                                    {"--depth", &shape.depth},
                                                    {"--heads", &shape.heads},
                                                    {"--decoder-dim", &shape.decoder_dim},
                                                    {"--decoder-depth", &shape.decoder_depth},
                                                    {"--decoder-heads", &shape.decoder_heads},
                                                    {"--batch", &shape.batch},
                                                    {"--unroll", &shape.unroll}};
  for (const auto& [option, value] : sizes)
    run->add_option(option, *value, "Of mlomae-step")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const auto cases = bench::all_cases(shape);
  if (list->parsed()) {
    for (const auto& which : cases)
      std::printf("%-10s %s\n", which.name.c_str(), which.what.c_str());
    return 0;
  }
  at::set_num_threads(threads);
  if (figures->parsed()) {
    try {
      if (which_figures == "accuracy")
        bench::print_accuracy();
      else
        bench::print_signal(data, assignments, masker_steps);
      return 0;
    } catch (const mlo::Error& error) {
      std::cerr << error.what() << "\n";
      return 2;
    }
  }
  int result = 2;
  for (const auto& which : cases)
    if (name == "all" || name == which.name) {
      result = bench::run(which, method, repeats, json);
      if (result != 0) return result;
    }
  if (result == 2) std::cerr << "no case '" << name << "'; see mlo-bench list\n";
  return result;
}
