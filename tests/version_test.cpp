#include "mlo/version.h"

#include <string>

#include <torch/types.h>
#include <torch/version.h>

#include "catch.h"

TEST_CASE("the library says the version that the build system gives it") {
  CHECK(std::string(mlo::version()) == MLO_EXPECTED_VERSION);
}

TEST_CASE("LibTorch is the release that mlo is built against, and computes") {
  CHECK(std::string(TORCH_VERSION).substr(0, 5) == "2.11.");
  auto x = torch::tensor({2.0}, torch::kFloat64).requires_grad_();
  (x * x * x).sum().backward();
  CHECK(x.grad().item<double>() == 12.0);
}
