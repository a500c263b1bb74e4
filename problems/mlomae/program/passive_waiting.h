#pragma once

namespace mlomae {

/// OpenMP's threads wait for each other by spinning, which costs a multiple of the time where other
/// processes want the same processors. Starts this program again with OMP_WAIT_POLICY=passive,
/// which the runtime reads when it is loaded, and does not return then; returns where the user has
/// chosen, where one thread waits for nobody, and where it cannot be started again.
void wait_passively(char** arguments);

}  // namespace mlomae
