// Options are given by name; one that does not exist is an error.
// expect: could not convert|no non-static data member named|field designator|no matching function
#include <mlo/optim/optimizers.h>

mlo::OptimizerFactory optimizer() {
#ifdef MLO_WRONG
  return mlo::sgd({.learning_rate = 0.1});
#else
  return mlo::sgd({.lr = 0.1});
#endif
}
