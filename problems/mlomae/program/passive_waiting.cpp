#include "mlomae/program/passive_waiting.h"

#include <cstdlib>
#include <string_view>

#include <unistd.h>

namespace mlomae {

void wait_passively(char** arguments) {
  for (const char* choice : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"})
    if (std::getenv(choice) != nullptr) return;
  if (const char* threads = std::getenv("OMP_NUM_THREADS");
      threads != nullptr && std::string_view(threads) == "1")
    return;
  if (::setenv("OMP_WAIT_POLICY", "passive", 1) == 0) ::execv("/proc/self/exe", arguments);
}

}  // namespace mlomae
