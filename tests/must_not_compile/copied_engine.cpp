// An engine is one thing: it holds its levels' state.
// expect: use of deleted function|call to deleted constructor
#include <mlo/engine.h>

#include <memory>

void copy(mlo::Engine& engine) {
#ifdef MLO_WRONG
  const mlo::Engine another(engine);
#else
  const mlo::Engine& another = engine;
#endif
  (void)another;
}
