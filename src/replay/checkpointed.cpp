#include "precompiled.h"

#include "mlo/checkpointed.h"

#include "mlo/error.h"
#include "replay/choices.h"
#include "replay/random.h"
#include "text.h"

#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <array>
#include <optional>

namespace mlo {
namespace {

using Function = std::function<at::Tensor(const at::Tensor&)>;
using torch::autograd::variable_list;

constexpr std::array<at::DeviceType, 2> kDevices = {at::kCPU, at::kCUDA};

struct AutocastState {
  bool on = false;
  at::ScalarType type = at::kFloat;
};

std::array<AutocastState, 2> autocast_state() {
  std::array<AutocastState, 2> states;
  for (std::size_t i = 0; i < states.size(); ++i)
    states[i] = {at::autocast::is_autocast_enabled(kDevices[i]),
                 at::autocast::get_autocast_dtype(kDevices[i])};
  return states;
}

void set_autocast(const std::array<AutocastState, 2>& states) {
  for (std::size_t i = 0; i < states.size(); ++i) {
    at::autocast::set_autocast_dtype(kDevices[i], states[i].type);
    at::autocast::set_autocast_enabled(kDevices[i], states[i].on);
  }
}

// Autocast's cache of converted weights holds the graph they were converted in, or none: neither
// pass may see the other's.
class OwnAutocastGuard {
 public:
  explicit OwnAutocastGuard(const std::array<AutocastState, 2>& states)
      : before_(autocast_state()), cached_(at::autocast::is_autocast_cache_enabled()) {
    set_autocast(states);
    at::autocast::set_autocast_cache_enabled(false);
  }
  ~OwnAutocastGuard() {
    at::autocast::set_autocast_cache_enabled(cached_);
    set_autocast(before_);
  }
  OwnAutocastGuard(const OwnAutocastGuard&) = delete;
  OwnAutocastGuard& operator=(const OwnAutocastGuard&) = delete;

 private:
  const std::array<AutocastState, 2> before_;
  const bool cached_;
};

// A frozen parameter that was to be differentiated by when f ran.
class UnfrozenGuard {
 public:
  explicit UnfrozenGuard(const Tensors& parameters) {
    for (const at::Tensor& p : parameters) {
      if (p.requires_grad() || !p.is_leaf()) continue;
      p.set_requires_grad(true);
      changed_.push_back(p);
    }
  }
  ~UnfrozenGuard() {
    for (const at::Tensor& p : changed_) p.set_requires_grad(false);
  }
  UnfrozenGuard(const UnfrozenGuard&) = delete;
  UnfrozenGuard& operator=(const UnfrozenGuard&) = delete;

 private:
  Tensors changed_;
};

struct CheckpointedBackward final : torch::autograd::Node {
  variable_list apply(variable_list&& gradients) override {
    if (!f)
      refuse<LossError>(
          "mlo::checkpointed: its backward is called a second time after its buffers were freed; "
          "retain the graph the first time");
    variable_list result(saved.size());
    if (!gradients[0].defined()) return result;
    const bool again =
        at::GradMode::is_enabled();  // create_graph: this derivative is to be differentiated, too
    Tensors unpacked;
    for (const auto& variable : saved) unpacked.push_back(variable.unpack());
    const at::Tensor input =
        again ? unpacked[0] : unpacked[0].detach().set_requires_grad(task_should_compute_output(0));

    Tensors wrt;
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < saved.size(); ++i) {
      if (!task_should_compute_output(i)) continue;
      wrt.push_back(i == 0 ? input : unpacked[i]);
      places.push_back(i);
    }
    if (wrt.empty()) return result;
    const UnfrozenGuard unfrozen(places[0] == 0 ? Tensors(wrt.begin() + 1, wrt.end()) : wrt);
    at::Tensor output;
    {
      const GeneratorGuard generators;
      set_generator_states(generator_states);
      const OwnAutocastGuard autocast(autocast_states);
      const NoChoicesGuard no_choices;
      const at::AutoGradMode with_gradients(true);
      output = f(input);
    }
    Tensors products = torch::autograd::grad({output}, wrt, {gradients[0]}, /*retain_graph=*/again,
                                             /*create_graph=*/again,
                                             /*allow_unused=*/true);
    for (std::size_t i = 0; i < places.size(); ++i) result[places[i]] = std::move(products[i]);
    return result;
  }
  std::string name() const override { return "mlo::CheckpointedBackward"; }
  void release_variables() override {
    saved.clear();
    f = nullptr;
  }

  Function f;
  std::vector<torch::autograd::SavedVariable> saved;  // the input, then the parameters
  std::vector<at::Tensor> generator_states;
  std::array<AutocastState, 2> autocast_states;
};

}  // namespace

at::Tensor checkpointed(const Function& f, const at::Tensor& input, const Tensors& parameters) {
  require(f != nullptr, "mlo::checkpointed: the function is empty; give the one to be recomputed");
  variable_list all = {input};
  all.insert(all.end(), parameters.begin(), parameters.end());
  bool differentiated = false, dual = false;
  for (const at::Tensor& tensor : all) {
    differentiated |= tensor.requires_grad();
    dual |= tensor._fw_grad(0).defined();
  }
  const NoChoicesGuard no_choices;
  if (!differentiated || dual || !at::GradMode::is_enabled()) return f(input);

  const std::shared_ptr<CheckpointedBackward> node(new CheckpointedBackward,
                                                   torch::autograd::deleteNode);
  node->f = f;
  node->set_next_edges(torch::autograd::collect_next_edges(all));
  for (const at::Tensor& tensor : all) node->saved.emplace_back(tensor, /*is_output=*/false);
  node->generator_states = generator_states();
  node->autocast_states = autocast_state();
  at::Tensor output;
  {
    const OwnAutocastGuard autocast(node->autocast_states);
    const at::NoGradGuard no_grad;
    output = f(input);
    if (output.is_view() || output.is_same(input)) output = output.clone();  // a graph of its own
  }
  torch::autograd::set_history(output, node);
  return output;
}

}  // namespace mlo
