#include "mlo/io/event_file.h"

#include "text.h"

#include <array>
#include <bit>
#include <chrono>
#include <cstring>

#include <unistd.h>

namespace mlo {
namespace {

// Protocol buffers, as far as an event needs them (tensorflow/core/util/event.proto,
// framework/summary.proto).
std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}
std::string key(int field, int wire_type) {
  return varint(static_cast<uint64_t>(field << 3 | wire_type));
}
template <class Bits>
std::string little_endian(Bits bits) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof(Bits); ++i) bytes += static_cast<char>(bits >> (8 * i));
  return bytes;
}
std::string number(int field, int64_t value) {
  return key(field, 0) + varint(static_cast<uint64_t>(value));
}
std::string real(int field, double value) {
  return key(field, 1) + little_endian(std::bit_cast<uint64_t>(value));
}
std::string real(int field, float value) {
  return key(field, 5) + little_endian(std::bit_cast<uint32_t>(value));
}
std::string text(int field, std::string_view bytes) {
  return key(field, 2) + varint(bytes.size()) + std::string(bytes);
}

std::string event(int64_t step, const std::string& what) {
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return real(1, now) + number(2, step) + what;
}

// CRC-32C (Castagnoli), masked as TFRecord wants it.
uint32_t masked_crc(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> t = {};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) c = c & 1U ? c >> 1 ^ 0x82F63B78U : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  uint32_t crc = ~0U;
  for (const char c : bytes) crc = table[(crc ^ static_cast<uint8_t>(c)) & 0xFFU] ^ crc >> 8;
  crc = ~crc;
  return (crc >> 15 | crc << 17) + 0xA282EAD8U;
}

}  // namespace

EventWriter::EventWriter(const std::filesystem::path& folder, int64_t first_step) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  // TensorBoard reads the files of a folder in the order of their names.
  int64_t earlier = 0;
  if (!error)
    for (std::filesystem::directory_iterator entry(folder, error);
         !error && entry != std::filesystem::directory_iterator(); entry.increment(error))
      earlier += entry->path().filename().string().starts_with("events.out.tfevents.") ? 1 : 0;
  require<Error>(!error,
                 "{}: the folder cannot be used for tensorboard: {}; give one that can be written",
                 folder.string(), error.message());
  file_ = folder / message("events.out.tfevents.{:010}.mlo.{}", earlier, ::getpid());
  out_.open(file_, std::ios::binary | std::ios::trunc);
  write(event(0, text(3, "brain.Event:2")));
  write(event(first_step, text(7, number(1, 1))));  // SessionLog, START
}

void EventWriter::scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;
  for (const auto& [name, value] : values)
    summary += text(1, text(1, name) + real(2, static_cast<float>(value)));
  if (!summary.empty()) write(event(step, text(5, summary)));
}

void EventWriter::image(int64_t step, const std::string& tag, const std::vector<uint8_t>& png,
                        int64_t width, int64_t height) {
  const std::string bytes(png.begin(), png.end());
  const std::string image = number(1, height) + number(2, width) + number(3, 3) + text(4, bytes);
  write(event(step, text(5, text(1, text(1, tag) + text(4, image)))));
}

// TFRecord: length, its checksum, the event, its checksum.
void EventWriter::write(const std::string& event) {
  const std::string length = little_endian(static_cast<uint64_t>(event.size()));
  const std::string record =
      length + little_endian(masked_crc(length)) + event + little_endian(masked_crc(event));
  out_.write(record.data(), static_cast<std::streamsize>(record.size()));
  out_.flush();
  if (!out_)
    refuse<Error>("{}: cannot be written: {}; make room, or give another folder", file_.string(),
                  std::strerror(errno));
}

}  // namespace mlo
