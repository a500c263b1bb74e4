// Fused attention stays where nothing differentiates it twice.
#include "engine/support.h"

#include <ATen/record_function.h>

namespace {

// Evaluations of attention by fused kernels, and by the others, while `run` runs.
std::pair<int, int> attentions(const std::function<void()>& run) {
  static std::atomic<int> fused, plain;
  fused = plain = 0;
  const auto handle =
      at::addGlobalCallback(at::RecordFunctionCallback([](const at::RecordFunction& f)
                                                           -> std::unique_ptr<at::ObserverContext> {
                              const std::string name = f.name();
                              if (name == "aten::_scaled_dot_product_flash_attention_for_cpu")
                                ++fused;
                              if (name == "aten::_scaled_dot_product_attention_math") ++plain;
                              return nullptr;
                            }).scopes({at::RecordScope::FUNCTION}));
  run();
  at::removeCallback(handle);
  return {fused.load(), plain.load()};
}

at::Tensor attend(const at::Tensor& x, const at::Tensor& w) {
  const auto parts = x.matmul(w).view({2, 6, 3, 2, 4}).permute({2, 0, 3, 1, 4}).unbind(0);
  return at::scaled_dot_product_attention(parts[0], parts[1], parts[2])
      .transpose(1, 2)
      .reshape({2, 6, 8});
}

}  // namespace

TEST_CASE(
    "Attention is fused below a head, and not in a level that is differentiated twice through it",
    "[engine][attention]") {
  torch::manual_seed(1);
  const at::Tensor x = torch::randn({2, 6, 8}, at::kDouble), y = torch::randn({2, 6}, at::kDouble);
  for (const bool through : {false, true}) {
    const at::Tensor encoder = torch::randn({8, 24}, at::kDouble).requires_grad_(),
                     head = torch::randn({8}, at::kDouble).requires_grad_(),
                     decay = torch::zeros({}, at::kDouble).requires_grad_();
    Engine engine;
    if (through) {  // encoder and head as one level, under a weight decay that is learned
      engine.add("low",
                 Lambda(mlo::trains(encoder, head),
                        [=](const Batch&) {
                          return (attend(x, encoder).matmul(head) - y).square().mean() +
                                 decay.exp() * (head.square().sum() + encoder.square().sum());
                        }),
                 {.optimizer = mlo::sgd({.lr = 0.01}), .best_response = mlo::one_step()});
      engine.add("up",
                 Lambda(mlo::trains(decay), [=](const Batch&) { return head.square().sum(); }),
                 {.optimizer = mlo::sgd({.lr = 0.01})});
    } else {  // the encoder is trained above the head
      engine.add("head",
                 Lambda(mlo::trains(head),
                        [=](const Batch&) {
                          return (attend(x, encoder).matmul(head) - y).square().mean();
                        }),
                 {.optimizer = mlo::sgd({.lr = 0.01}), .best_response = mlo::one_step()});
      engine.add("encoder",
                 Lambda(mlo::trains(encoder),
                        [=](const Batch&) {
                          return (attend(x, encoder).matmul(head) - y).square().mean();
                        }),
                 {.optimizer = mlo::sgd({.lr = 0.01})});
    }
    engine.step();
    const auto [fused, plain] = attentions([&] { engine.step(); });
    CHECK(fused == (through ? 0 : 2));
    CHECK(plain == (through ? 1 : 0));
    CHECK((at::globalContext().userEnabledFlashSDP() &&
           at::globalContext().userEnabledMemEfficientSDP()));
  }
}
