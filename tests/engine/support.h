#pragma once

#include "io/files.h"

#include <mlo/mlo.h>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <cstring>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"

using mlo::Batch;
using mlo::Engine;
using mlo::EngineOptions;
using mlo::Evaluation;
using mlo::LevelOptions;
using mlo::State;
using mlo::Tensors;

inline at::Tensor number(double value) { return at::scalar_tensor(value, at::kDouble); }

/// A parameter of the test's own, in double.
inline at::Tensor leaf(at::ArrayRef<double> values) {
  return torch::tensor(values, at::kDouble).requires_grad_();
}
inline at::Tensor leaf(double value = 0.0) {
  return at::scalar_tensor(value, at::kDouble).requires_grad_();
}

/// Puts the number of LibTorch's threads back.
struct ThreadsGuard {
  ThreadsGuard() : before(at::get_num_threads()) {}
  ~ThreadsGuard() { at::set_num_threads(before); }
  ThreadsGuard(const ThreadsGuard&) = delete;
  ThreadsGuard& operator=(const ThreadsGuard&) = delete;
  const int before;
};

/// A level made of functions.
struct Lambda final : mlo::Problem {
  using Loss = std::function<Evaluation(const Batch&)>;
  Lambda(mlo::Trains trained, Loss loss) : Problem(std::move(trained)), function(std::move(loss)) {}
  Lambda(const at::Tensor& trained, Loss loss) : Lambda(mlo::trains(trained), std::move(loss)) {}

  Evaluation loss(const Batch& batch) override { return function(batch); }
  std::map<std::string, double> validate() override {
    return judge ? judge() : std::map<std::string, double>{};
  }
  void on_inner_loop_start() override { say("start"); }
  void on_gradient(Tensors& gradient) override {
    say("gradient");
    if (gradient_hook) gradient_hook(gradient);
  }
  void on_step() override {
    say("step");
    if (step_hook) step_hook();
  }
  void on_epoch(int64_t epoch) override { say("epoch " + std::to_string(epoch)); }
  void say(const std::string& what) const {
    if (log) log->push_back(name + " " + what);
  }

  Loss function;
  std::function<std::map<std::string, double>()> judge;
  std::function<void(Tensors&)> gradient_hook;
  std::function<void()> step_hook;
  std::vector<std::string>* log = nullptr;
  std::string name;
};

/// ½(x − y)²: x follows y.
inline Lambda follow(const at::Tensor& x, const at::Tensor& y) {
  return {x, [x, y](const Batch&) { return 0.5 * (x - y).square().sum(); }};
}
/// ½(x − 1)² + ½ decay·y², to be minimized in y through what x answers.
inline Lambda lead(const at::Tensor& y, const at::Tensor& x, double decay = 0.1) {
  return {y, [x, y, decay](const Batch&) {
            return 0.5 * (x - 1.0).square().sum() + 0.5 * decay * y.square().sum();
          }};
}
/// ½(x − 1)².
inline Lambda alone(const at::Tensor& x) {
  return {x, [x](const Batch&) { return 0.5 * (x - 1.0).square().sum(); }};
}

inline LevelOptions sgd(double lr = 0.1) { return {.optimizer = mlo::sgd({.lr = lr})}; }
inline LevelOptions respond(std::unique_ptr<mlo::Method> method, double lr = 0.1) {
  return {.optimizer = mlo::sgd({.lr = lr}), .best_response = std::move(method)};
}

inline std::unique_ptr<mlo::Method> by_duals() {
  return mlo::implicit(mlo::reverse_over_forward_oracle(), mlo::identity_solver());
}

/// The call must throw an `Error` of which each of the words is part.
template <class Error, class Call>
void check_refused(Call&& call, std::initializer_list<std::string> words) {
  const std::string message = message_of<Error>(std::forward<Call>(call));
  INFO("message: " << message);
  CHECK_FALSE(message.empty());
  for (const std::string& word : words) {
    INFO("not in it: " << word);
    CHECK(message.find(word) != std::string::npos);
  }
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const at::Tensor left = a.detach().contiguous(), right = b.detach().contiguous();
  return left.nbytes() == 0 ||
         std::memcmp(left.const_data_ptr(), right.const_data_ptr(), left.nbytes()) == 0;
}

inline bool same_bits(const Tensors& a, const Tensors& b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(),
                    [](const auto& x, const auto& y) { return same_bits(x, y); });
}

inline Tensors copies(const Tensors& tensors) {
  Tensors result;
  for (const auto& tensor : tensors) result.push_back(tensor.detach().clone());
  return result;
}

/// The keys whose values differ in any bit, or that one of them lacks; empty if the states are the
/// same.
inline std::string difference(const State& a, const State& b) {
  const auto same = [](const State::Value& x, const State::Value& y) {
    if (x.index() != y.index()) return false;
    if (const auto* tensor = std::get_if<at::Tensor>(&x))
      return same_bits(*tensor, std::get<at::Tensor>(y));
    if (const auto* real = std::get_if<double>(&x))
      return std::memcmp(real, &std::get<double>(y), sizeof(double)) == 0;
    if (const auto* integer = std::get_if<int64_t>(&x)) return *integer == std::get<int64_t>(y);
    return std::get<std::string>(x) == std::get<std::string>(y);
  };
  std::string keys;
  for (const auto& [key, value] : a.values())
    if (!b.has(key) || !same(value, b.values().at(key))) keys += key + " ";
  for (const auto& [key, value] : b.values())
    if (!a.has(key)) keys += key + " ";
  return keys;
}

/// The state with one value replaced.
inline State with(const State& state, const std::string& key, State::Value value) {
  State changed;
  for (const auto& [name, old] : state.values()) changed.set(name, name == key ? value : old);
  return changed;
}

inline at::Tensor generator_state() { return at::detail::getDefaultCPUGenerator().get_state(); }

/// LibTorch's attention switches, which belong to the process.
inline std::vector<bool> attention_switches() {
  const auto& context = at::globalContext();
  return {context.userEnabledFlashSDP(), context.userEnabledMemEfficientSDP(),
          context.userEnabledMathSDP(), context.userEnabledCuDNNSDP()};
}

/// A callback that calls functions.
struct Watch final : mlo::Callback {
  void on_start(const Engine& engine) override {
    if (start) start(engine);
  }
  void on_step(const mlo::StepReport& report) override {
    if (step) step(report);
  }
  void on_validation(const Engine&, const mlo::ValidationReport& report) override {
    if (validation) validation(report);
  }
  void on_warning(const std::string& text) override { warnings.push_back(text); }
  void on_stop(const Engine&, const std::string& reason) override { stops.push_back(reason); }

  std::function<void(const Engine&)> start;
  std::function<void(const mlo::StepReport&)> step;
  std::function<void(const mlo::ValidationReport&)> validation;
  std::vector<std::string> warnings, stops;
};
