// A level is added by a problem of the user's class, not by something that is none.
// expect: constraints not satisfied|no matching (member )?function
#include <mlo/engine.h>

struct NoProblem {};
struct Fit : mlo::Problem {
  explicit Fit(const at::Tensor& w) : Problem(mlo::trains(w)) {}
  mlo::Evaluation loss(const mlo::Batch&) override;
};

void add(mlo::Engine& engine, const at::Tensor& w) {
#ifdef MLO_WRONG
  engine.add("fit", NoProblem{}, {});
#else
  engine.add("fit", Fit(w), {});
#endif
}
