#include <cstdio>
#include <cstring>

#include <ATen/ops/ones.h>

#include "mlo/version.h"

int main() {
  const double sum = at::ones({2, 3}, at::kDouble).sum().item<double>();
  std::printf("mlo %s, a sum by LibTorch: %g\n", mlo::version(), sum);
  return std::strcmp(mlo::version(), "0.1.0") == 0 && sum == 6 ? 0 : 1;
}
