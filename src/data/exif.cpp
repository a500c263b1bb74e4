#include "data/exif.h"

namespace mlo {

int exif_orientation(const uint8_t* bytes, std::size_t size) {
  if (size < 8 || bytes[0] != bytes[1] || (bytes[0] != 'I' && bytes[0] != 'M')) return 1;
  const bool little = bytes[0] == 'I';
  const auto number = [&](std::size_t at, int width) {
    uint32_t value = 0;
    for (int i = 0; i < width; ++i)
      value = value << 8 | bytes[at + static_cast<std::size_t>(little ? width - 1 - i : i)];
    return value;
  };
  constexpr std::size_t kEntry = 12;  // tag, type, count, value
  constexpr uint32_t kOrientation = 0x0112, kShort = 3;
  const std::size_t table = number(4, 4);
  if (table > size - 2) return 1;
  std::size_t at = table + 2;
  for (uint32_t left = number(table, 2); left > 0 && at + kEntry <= size; --left, at += kEntry) {
    if (number(at, 2) != kOrientation || number(at + 2, 2) != kShort || number(at + 4, 4) != 1)
      continue;
    const uint32_t value = number(at + 8, 2);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

}  // namespace mlo
