#include "data/exif.h"
#include "data/image_file.h"
#include "text.h"

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
// After <cstdio>, which it needs and does not include.
#include <jpeglib.h>

#include <jerror.h>

namespace mlo {
namespace {

struct ErrorManager {
  jpeg_error_mgr base = {};
  jpeg_progress_mgr progress = {};
  std::jmp_buf back = {};
  std::array<char, JMSG_LENGTH_MAX> message = {};
};

// A scan may be a few bytes that send the decoder through the whole image. Encoders make some ten
// of them; this bounds the work, too.
constexpr int64_t kMostScans = 100, kMostPixelsOfScans = int64_t{1} << 33;

template <class... Values>
void note(ErrorManager& manager, fmt::format_string<Values...> format, Values&&... values) {
  std::array<char, JMSG_LENGTH_MAX>& text = manager.message;
  *fmt::vformat_to_n(text.data(), text.size() - 1, format, fmt::make_format_args(values...)).out =
      '\0';
}

extern "C" void on_error(j_common_ptr info) {
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  info->err->format_message(info, manager->message.data());
  std::longjmp(manager->back, 1);
}
// Level −1 is a warning, others are traces. Some warnings are harmless oddities of cameras and
// editors; after the others libjpeg goes on with grey in place of what is lost, and we do not: half
// an image is no image.
extern "C" void on_message(j_common_ptr info, int level) {
  const int code = info->err->msg_code;
  if (level >= 0 || code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM ||
      code == JWRN_BOGUS_PROGRESSION || code == JWRN_TOO_MUCH_DATA)
    return;
  on_error(info);
}
extern "C" void on_output(j_common_ptr /*info*/) {}
extern "C" void on_progress(j_common_ptr info) {
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  const auto* jpeg = reinterpret_cast<j_decompress_ptr>(info);
  const int64_t most = std::min(
      kMostScans, kMostPixelsOfScans / (int64_t{jpeg->image_width} * int64_t{jpeg->image_height}));
  if (jpeg->input_scan_number <= most) return;
  note(*manager, "it has more than {} scans, which only keep the reader busy", most);
  std::longjmp(manager->back, 1);
}

int orientation_of(const jpeg_decompress_struct& info) {
  constexpr std::array<uint8_t, 6> kExif = {'E', 'x', 'i', 'f', 0, 0};
  for (const auto* marker = info.marker_list; marker != nullptr; marker = marker->next)
    if (marker->data_length >= kExif.size() &&
        std::memcmp(marker->data, kExif.data(), kExif.size()) == 0)
      return exif_orientation(marker->data + kExif.size(), marker->data_length - kExif.size());
  return 1;
}

// Between setjmp and the end only plain values live here, so that no destructor is jumped over.
// What must grow is the caller's. False: the message is in `manager`.
bool decode(const std::vector<uint8_t>& bytes, int64_t wanted, jpeg_decompress_struct& info,
            ErrorManager& manager, Pixels& pixels) {
  if (setjmp(manager.back) != 0) return false;
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, bytes.data(),
               static_cast<unsigned long>(bytes.size()));  // NOLINT(google-runtime-int)
  info.progress = &manager.progress;
  jpeg_save_markers(&info, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&info, TRUE);
  pixels.orientation = orientation_of(info);
  if (!may_be_read({.width = info.image_width,
                    .height = info.image_height,
                    .channels = info.num_components,
                    .in_scans = jpeg_has_multiple_scans(&info) != 0},
                   wanted, bytes.size())) {
    note(manager, "{} bytes announce {} x {} pixels, too many to be true", bytes.size(),
         info.image_width, info.image_height);
    return false;
  }
  // Of four channels libjpeg makes CMYK only; the caller goes on to RGB.
  const bool four = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  info.out_color_space = four                                     ? JCS_CMYK
                         : info.jpeg_color_space == JCS_GRAYSCALE ? JCS_GRAYSCALE
                                                                  : JCS_RGB;
  jpeg_start_decompress(&info);
  pixels.width = info.output_width;
  pixels.height = info.output_height;
  pixels.channels = info.output_components;
  pixels.values.resize(static_cast<std::size_t>(pixels.width * pixels.height * pixels.channels));
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = pixels.values.data() +
                   static_cast<std::size_t>(info.output_scanline * pixels.width * pixels.channels);
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  return true;
}

// Adobe writes CMYK inverted, 255 − ink, and everybody follows, with its marker in the file or
// without (as PIL has it, too).
void to_rgb(Pixels& pixels) {
  std::vector<uint8_t> rgb(static_cast<std::size_t>(pixels.width * pixels.height * 3));
  for (std::size_t i = 0; i < rgb.size() / 3; ++i) {
    const uint8_t* paper = pixels.values.data() + 4 * i;
    for (std::size_t c = 0; c < 3; ++c)
      rgb[3 * i + c] = static_cast<uint8_t>((paper[c] * paper[3] + 127) / 255);
  }
  pixels.values = std::move(rgb);
  pixels.channels = 3;
}

}  // namespace

Pixels decode_jpeg(const std::vector<uint8_t>& bytes, int64_t wanted) {
  ErrorManager manager;
  jpeg_decompress_struct info = {};
  info.err = jpeg_std_error(&manager.base);
  manager.base.error_exit = on_error;
  manager.base.emit_message = on_message;
  manager.base.output_message = on_output;
  manager.progress.progress_monitor = on_progress;
  Pixels pixels;
  const bool whole = decode(bytes, wanted, info, manager, pixels);
  jpeg_destroy_decompress(&info);
  if (!whole) refuse<Error>("is no whole JPEG: {}", manager.message.data());
  if (pixels.channels == 4) to_rgb(pixels);
  return pixels;
}

}  // namespace mlo
