#include "fuzz/targets.h"
#include "io/files.h"

#include <algorithm>
#include <chrono>
#include <random>

#include "catch.h"

namespace {

// What fuzzers do without looking at the program: bits, bytes, numbers at their ends, parts cut
// out, doubled and joined.
std::string mutated(std::string bytes, const std::string& other, std::mt19937_64& random) {
  const auto below = [&](std::size_t n) {
    return n == 0 ? 0 : static_cast<std::size_t>(random() % n);
  };
  for (std::size_t left = 1 + below(4); left > 0; --left) {
    const std::size_t at = below(bytes.size()), length = std::min(bytes.size() - at, 1 + below(16));
    switch (random() % 6) {
      case 0:
        if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 1:
        for (std::size_t i = at; i < at + length; ++i) bytes[i] = static_cast<char>(random());
        break;
      case 2: {
        const char end = "\x00\xff\x7f\x80"[below(4)];
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), length, end);
        break;
      }
      case 3: bytes.erase(at, length); break;
      case 4: bytes.insert(at, bytes.substr(at, length)); break;
      default: bytes = bytes.substr(0, at) + other.substr(below(other.size()));
    }
  }
  return bytes;
}

}  // namespace

TEST_CASE("Readers take whole files and answer all else with an mlo::Error", "[fuzz]") {
  const TemporaryFolder folder;
  for (const FuzzTarget& target : fuzz_targets()) {
    INFO(target.name);
    const auto seeds = target.seeds();
    REQUIRE_FALSE(seeds.empty());
    for (const std::string& seed : seeds) CHECK(taken(target, seed, folder / "file"));
    int refused = 0;
    double slowest = 0.0;
    std::mt19937_64 random(1);
    for (int i = 0; i < 1500; ++i) {
      CAPTURE(i);
      const std::string bytes =
          mutated(seeds[random() % seeds.size()], seeds[random() % seeds.size()], random);
      const auto start = std::chrono::steady_clock::now();
      bool read = false;
      CHECK_NOTHROW(read = taken(target, bytes, folder / "file"));
      refused += read ? 0 : 1;
      slowest = std::max(
          slowest, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    CHECK(refused > 300);
    CHECK(slowest < 10.0);
  }
}
