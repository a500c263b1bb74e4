#include "precompiled.h"

#include "replay/random.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

namespace mlo {
namespace {

uint64_t split_mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

// The default generators of every device in this process.
template <class Use>
void for_each_generator(Use&& use) {
  use(at::detail::getDefaultCPUGenerator());
  static const std::size_t devices = at::hasCUDA() ? at::getNumGPUs() : 0;
  for (std::size_t i = 0; i < devices; ++i)
    use(at::globalContext().defaultGenerator(
        c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(i))));
}

}  // namespace

uint64_t stream_key(uint64_t seed, uint64_t level, int64_t step, int64_t micro_batch) {
  uint64_t key = split_mix(seed);
  key = split_mix(key ^ level);
  key = split_mix(key ^ static_cast<uint64_t>(step));
  return split_mix(key ^ static_cast<uint64_t>(micro_batch));
}

uint64_t name_key(std::string_view name) {
  uint64_t hash = 0xCBF29CE484222325ULL;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return hash;
}

void seed_generators(uint64_t key) {
  for_each_generator([key](at::Generator generator) {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_current_seed(key);
  });
}

std::vector<at::Tensor> generator_states() {
  std::vector<at::Tensor> states;
  for_each_generator([&states](at::Generator generator) {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    states.push_back(generator.get_state());
  });
  return states;
}

void set_generator_states(const std::vector<at::Tensor>& states) {
  std::size_t i = 0;
  for_each_generator([&](at::Generator generator) {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(states[i++]);
  });
}

GeneratorGuard::GeneratorGuard() : states_(generator_states()) {}
GeneratorGuard::~GeneratorGuard() { set_generator_states(states_); }

}  // namespace mlo
