#pragma once

#include "support.h"

#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <map>

/// Modules evaluated at other tensors than their parameters, so that automatic differentiation goes
/// through optimizer steps. LibTorch has no functional call; this one replaces the members that the
/// forward functions read.
namespace functional {

// The members of MaskedAutoencoderImpl that are parameters: private, and reached as explicit
// instantiation may.
template <class Tag, typename Tag::type member>
struct Reach {
  friend typename Tag::type reach(Tag) { return member; }
};
#define MLOMAE_REACH(tag)                                     \
  struct tag {                                                \
    using type = at::Tensor mlomae::MaskedAutoencoderImpl::*; \
    friend type reach(tag);                                   \
  };                                                          \
  template struct Reach<tag, &mlomae::MaskedAutoencoderImpl::tag##_>;
MLOMAE_REACH(cls_token)
MLOMAE_REACH(pos_embed)
MLOMAE_REACH(mask_token)
MLOMAE_REACH(decoder_pos_embed)
MLOMAE_REACH(weight)
MLOMAE_REACH(bias)
#undef MLOMAE_REACH

/// Where a module's forward reads each of its parameters, in the order of named_parameters().
inline std::vector<at::Tensor*> places(const std::shared_ptr<torch::nn::Module>& module) {
  std::map<const void*, at::Tensor*> members;
  const auto note = [&](at::Tensor& member) {
    if (member.defined()) members[member.unsafeGetTensorImpl()] = &member;
  };
  for (const auto& part : module->modules()) {
    if (auto* linear = part->as<torch::nn::Linear>()) note(linear->weight), note(linear->bias);
    if (auto* norm = part->as<torch::nn::LayerNorm>()) note(norm->weight), note(norm->bias);
    if (auto* mae = part->as<mlomae::MaskedAutoencoder>())
      for (at::Tensor mlomae::MaskedAutoencoderImpl::*member :
           {reach(cls_token{}), reach(pos_embed{}), reach(mask_token{}), reach(decoder_pos_embed{}),
            reach(weight{}), reach(bias{})})
        note(mae->*member);
  }
  std::vector<at::Tensor*> result;
  for (const auto& item : module->named_parameters()) {
    if (!item.value().requires_grad()) continue;
    result.push_back(members.at(item.value().unsafeGetTensorImpl()));
  }
  return result;
}

/// For its lifetime the module computes with these tensors.
class At {
 public:
  At(const std::vector<at::Tensor*>& members, const mlo::Tensors& values) : members_(members) {
    for (std::size_t i = 0; i < members.size(); ++i) {
      before_.push_back(*members[i]);
      *members[i] = values[i];
    }
  }
  ~At() {
    for (std::size_t i = 0; i < members_.size(); ++i) *members_[i] = before_[i];
  }
  At(const At&) = delete;
  At& operator=(const At&) = delete;

 private:
  std::vector<at::Tensor*> members_;
  mlo::Tensors before_;
};

/// SGD or AdamW (β = 0.9, 0.95, ε = 1e-8) written out, differentiable in the gradient of the last
/// step.
struct Optimizer {
  bool adam = false;
  double lr = 0.1, decay = 0.0;
  int64_t t = 0;
  mlo::Tensors m = {}, v = {};

  mlo::Tensors step(const mlo::Tensors& theta, const mlo::Tensors& g) {
    ++t;
    mlo::Tensors next;
    for (std::size_t i = 0; i < theta.size(); ++i) {
      if (!adam) {
        next.push_back(theta[i] - lr * (g[i] + decay * theta[i]));
        continue;
      }
      if (t == 1)
        m.push_back(torch::zeros_like(theta[i])), v.push_back(torch::zeros_like(theta[i]));
      const at::Tensor m1 = 0.9 * m[i] + 0.1 * g[i], v1 = 0.95 * v[i] + 0.05 * g[i] * g[i];
      const double c1 = 1.0 - std::pow(0.9, static_cast<double>(t)),
                   c2 = 1.0 - std::pow(0.95, static_cast<double>(t));
      next.push_back(theta[i] * (1.0 - lr * decay) - lr * (m1 / c1) / ((v1 / c2).sqrt() + 1e-8));
      m[i] = m1.detach(), v[i] = v1.detach();
    }
    return next;
  }
};

}  // namespace functional
