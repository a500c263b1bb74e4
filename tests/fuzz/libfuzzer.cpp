// One of the targets under libFuzzer; which one, says the variable MLO_FUZZ_TARGET.
// tests/fuzz/run.sh runs them all.
#include "fuzz/targets.h"
#include "io/files.h"

#include <cstdio>
#include <cstdlib>

namespace {

const FuzzTarget& chosen() {
  const char* name = std::getenv("MLO_FUZZ_TARGET");
  for (const FuzzTarget& target : fuzz_targets())
    if (name && target.name == name) return target;
  std::fprintf(stderr, "set MLO_FUZZ_TARGET to one of:");
  for (const FuzzTarget& target : fuzz_targets()) std::fprintf(stderr, " %s", target.name.c_str());
  std::fprintf(stderr, "\n");
  std::exit(2);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  static const FuzzTarget& target = chosen();
  static const TemporaryFolder folder;
  // The whole files that are known go where libFuzzer looks for what to begin with.
  static const bool seeded = [] {
    if (const char* corpus = std::getenv("MLO_FUZZ_SEEDS")) {
      int number = 0;
      for (const std::string& seed : target.seeds())
        write_bytes(std::filesystem::path(corpus) / ("seed-" + std::to_string(number++)), seed);
    }
    return true;
  }();
  static_cast<void>(seeded);
  taken(target, {reinterpret_cast<const char*>(data), size}, folder / "input");
  return 0;
}
