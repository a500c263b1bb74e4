// Train and eval mode of every module is its own, however the modules of the levels overlap.
#include "engine/support.h"

#include <torch/nn/modules/linear.h>

#include <algorithm>
#include <numeric>

namespace {

struct PartImpl : torch::nn::Module {
  using torch::nn::Module::Module;
  std::shared_ptr<torch::nn::Module> keep(const std::string& name,
                                          std::shared_ptr<torch::nn::Module> child) {
    return register_module(name, std::move(child));
  }
};

/// A backbone that keeps its norm in eval mode, whatever is asked of it.
struct StubbornImpl final : PartImpl {
  void train(bool on = true) override {
    torch::nn::Module::train(on);
    for (const auto& child : children()) child->eval();
  }
};

/// root(left(shared(deep)), right(shared), stubborn(norm)): a module below two others, and one that
/// overrides train.
struct Tree {
  std::shared_ptr<PartImpl> root = std::make_shared<PartImpl>(),
                            left = std::make_shared<PartImpl>(),
                            right = std::make_shared<PartImpl>(),
                            shared = std::make_shared<PartImpl>(),
                            deep = std::make_shared<PartImpl>(),
                            norm = std::make_shared<PartImpl>();
  std::shared_ptr<StubbornImpl> stubborn = std::make_shared<StubbornImpl>();
  // Parents before children.
  std::vector<std::shared_ptr<torch::nn::Module>> all = {root, left,     right, shared,
                                                         deep, stubborn, norm};

  Tree() {
    shared->keep("deep", deep);
    left->keep("shared", shared);
    right->keep("shared", shared);
    stubborn->keep("norm", norm);
    root->keep("left", left);
    root->keep("right", right);
    root->keep("stubborn", stubborn);
  }
  std::vector<bool> modes() const {
    std::vector<bool> result;
    for (const auto& module : all) result.push_back(module->is_training());
    return result;
  }
};

}  // namespace

TEST_CASE("A validation leaves an encoder in eval mode under a module that trains",
          "[engine][modes]") {
  torch::nn::Linear encoder(2, 2), head(2, 1);
  const auto whole = std::make_shared<PartImpl>();
  whole->keep("encoder", encoder.ptr());
  whole->keep("head", head.ptr());
  encoder->eval();
  const auto part = [](const at::Tensor& w) {
    return [w](const Batch&) { return w.square().sum(); };
  };
  for (const bool whole_first : {false, true}) {
    Engine engine;
    const auto low = [&] {
      engine.add("encoder", Lambda(mlo::trains(encoder), part(encoder->weight)),
                 {.optimizer = mlo::sgd(), .top = true});
    };
    const auto up = [&] {
      mlo::Trains trained = mlo::trains(head);
      trained.uses(whole);
      engine.add("head", Lambda(trained, part(head->weight)),
                 {.optimizer = mlo::sgd(), .top = true});
    };
    whole_first ? (up(), low()) : (low(), up());
    engine.validate();
    CHECK(whole->is_training());
    CHECK(head->is_training());
    CHECK_FALSE(encoder->is_training());
  }
}

TEST_CASE("Modes of overlapping modules, registered in any order, are put back exactly",
          "[engine][modes]") {
  std::mt19937 random(3);
  for (int trial = 0; trial < 60; ++trial) {
    Tree tree;
    std::vector<bool> wanted;
    for (const auto& module : tree.all) {
      module->train(random() % 2 == 0);
      wanted.push_back(module->is_training());
    }
    wanted = tree.modes();
    std::vector<std::size_t> order(tree.all.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);

    // One level a module; the lower ones are evaluated again by a probe, in other modes than the
    // present ones.
    Engine engine;
    const at::Tensor y = leaf(0.5);
    Tensors below;
    std::vector<std::vector<bool>> seen;
    for (const std::size_t i : order) {
      const at::Tensor x = leaf(0.2);
      mlo::Trains trained = mlo::trains(x);
      trained.uses(tree.all[i]);
      below.push_back(x);
      engine.add("level" + std::to_string(i),
                 Lambda(trained,
                        [&seen, &tree, x, y](const Batch&) {
                          seen.push_back(tree.modes());
                          return 0.5 * (x - y).square();
                        }),
                 respond(mlo::darts()));
    }
    engine.add("top",
               Lambda(y,
                      [below](const Batch&) {
                        at::Tensor sum = at::zeros({}, at::kDouble);
                        for (const auto& x : below) sum = sum + x;
                        return sum;
                      }),
               sgd());
    engine.step();
    CHECK(tree.modes() == wanted);
    engine.validate();
    CHECK(tree.modes() == wanted);
    CHECK(
        std::all_of(seen.begin(), seen.end(), [&](const auto& modes) { return modes == wanted; }));
  }
}
