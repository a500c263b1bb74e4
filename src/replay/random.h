#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace mlo {

/// The key of the random stream (seed, level, step, micro-batch); SplitMix64 over the parts, so
/// near keys give unrelated streams.
uint64_t stream_key(uint64_t seed, uint64_t level, int64_t step, int64_t micro_batch);
/// A level's part of the key: of its name, so that adding a level does not change the others'
/// streams.
uint64_t name_key(std::string_view name);

/// Puts LibTorch's default generators (CPU, and the CUDA devices if they are in use) at the start
/// of a stream.
void seed_generators(uint64_t key);

/// Of LibTorch's default generators, and back.
std::vector<at::Tensor> generator_states();
void set_generator_states(const std::vector<at::Tensor>& states);

/// Remembers the default generators and puts them back as they were.
class GeneratorGuard {
 public:
  GeneratorGuard();
  ~GeneratorGuard();
  GeneratorGuard(const GeneratorGuard&) = delete;
  GeneratorGuard& operator=(const GeneratorGuard&) = delete;

 private:
  std::vector<at::Tensor> states_;
};

}  // namespace mlo
