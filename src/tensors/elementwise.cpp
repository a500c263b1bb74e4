#include "tensors/elementwise.h"

#include <ATen/TensorIterator.h>

namespace mlo::detail {

void in_threads(int64_t n, c10::function_ref<void(int64_t begin, int64_t end)> loop) {
  // at::parallel_for is a template that is serial wherever OpenMP is off in the compiler, as it is
  // here (a second OpenMP runtime beside LibTorch's would fight it for the cores). An iterator's
  // for_each is compiled inside LibTorch, so let one walk over n bytes that are never touched and
  // take from it where it is.
  const auto bytes = at::empty({n}, at::kByte);
  const auto* base = static_cast<const char*>(bytes.const_data_ptr());
  auto iterator = at::TensorIteratorConfig()
                      .add_output(bytes)
                      .resize_outputs(false)
                      .check_all_same_dtype(false)
                      .build();
  iterator.for_each(
      [&](char** data, const int64_t* /*strides*/, int64_t size) {
        const int64_t begin = data[0] - base;
        loop(begin, begin + size);
      },
      kGrain);
}

}  // namespace mlo::detail
