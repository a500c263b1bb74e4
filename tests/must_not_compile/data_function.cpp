// A function of data takes the number of the batch and returns a Batch.
// expect: no match|could not convert|cannot convert|conversion from|no viable
#include <mlo/data/source.h>

mlo::Data data(const at::Tensor& x) {
#ifdef MLO_WRONG
  return [x](int64_t) { return 1.0; };
#else
  return [x](int64_t) { return mlo::Batch{x}; };
#endif
}
