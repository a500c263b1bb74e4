#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace mlomae {

/// 64 bits of all that was added, in its order: to see that data are no longer the same, not to
/// keep secrets.
class Digest {
 public:
  void add(uint64_t value) {
    value = (value ^ state_) * 0x9E3779B97F4A7C15u;
    value = (value ^ (value >> 32)) * 0xBF58476D1CE4E5B9u;
    state_ = value ^ (value >> 29);
  }
  void add(int64_t value) { add(static_cast<uint64_t>(value)); }
  void add(std::string_view bytes) {
    add(static_cast<uint64_t>(bytes.size()));
    for (; !bytes.empty(); bytes.remove_prefix(bytes.size() < 8 ? bytes.size() : 8)) {
      uint64_t word = 0;
      std::memcpy(&word, bytes.data(), bytes.size() < 8 ? bytes.size() : 8);
      add(word);
    }
  }
  uint64_t value() const { return state_; }
  std::string hex() const {
    std::string text;
    for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[state_ >> shift & 15];
    return text;
  }

 private:
  uint64_t state_ = 0x6D6C6F6D6165u;
};

}  // namespace mlomae
