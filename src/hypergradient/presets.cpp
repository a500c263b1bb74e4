#include "mlo/hypergradient/presets.h"

namespace mlo {

std::unique_ptr<Method> darts(FiniteDifferenceOptions difference, IdentityOptions identity) {
  return implicit(finite_difference_oracle(difference), identity_solver(identity));
}

std::unique_ptr<Method> one_step(ExactOptions exact, IdentityOptions identity) {
  return implicit(exact_oracle(exact), identity_solver(identity));
}

std::unique_ptr<Method> neumann(NeumannOptions options, ExactOptions exact) {
  return implicit(exact_oracle(exact), neumann_solver(options));
}

std::unique_ptr<Method> cg(ConjugateGradientOptions options, ExactOptions exact) {
  return implicit(exact_oracle(exact), conjugate_gradient_solver(options));
}

std::unique_ptr<Method> sama(FiniteDifferenceOptions difference) { return darts(difference); }

std::unique_ptr<Method> betty() {
  return implicit(
      finite_difference_oracle({.constant = 0.01, .radius = FiniteDifferenceOptions::Radius::norm}),
      identity_solver({.scale = IdentityOptions::Scale::one}), EvaluationPoint::after_step);
}

}  // namespace mlo
