// Levels train modules and tensors; a number is neither.
// expect: static.assert
#include <mlo/problem.h>

mlo::Trains trained(const at::Tensor& w) {
#ifdef MLO_WRONG
  return mlo::trains(1.0);
#else
  return mlo::trains(w);
#endif
}
