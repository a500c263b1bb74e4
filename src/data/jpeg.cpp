#include "data/image_file.h"
#include "mlo/error.h"

#include <array>
#include <csetjmp>
#include <cstdio>
// After <cstdio>, which it needs and does not include.
#include <jpeglib.h>

#include <jerror.h>

namespace mlo {
namespace {

struct ErrorManager {
  jpeg_error_mgr base = {};
  std::jmp_buf back = {};
  std::array<char, JMSG_LENGTH_MAX> message = {};
  bool warned = false;
};

extern "C" void on_error(j_common_ptr info) {
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  info->err->format_message(info, manager->message.data());
  std::longjmp(manager->back, 1);
}
// Level −1 is a warning, others are traces. Some warnings are harmless oddities of cameras and editors; after the others libjpeg
// goes on with grey in place of what is lost, and we do not: half an image is no image.
extern "C" void on_message(j_common_ptr info, int level) {
  const int code = info->err->msg_code;
  if (level >= 0 || code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM || code == JWRN_BOGUS_PROGRESSION ||
      code == JWRN_TOO_MUCH_DATA)
    return;
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  if (!manager->warned) info->err->format_message(info, manager->message.data());
  manager->warned = true;
}
extern "C" void on_output(j_common_ptr /*info*/) {}

// Between setjmp and the end only plain values live here, so that no destructor is jumped over. What must grow is the
// caller's. False: the message is in `manager`.
bool decode(const std::vector<uint8_t>& bytes, jpeg_decompress_struct& info, ErrorManager& manager, Pixels& pixels) {
  if (setjmp(manager.back) != 0) return false;
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, bytes.data(), static_cast<unsigned long>(bytes.size()));  // NOLINT(google-runtime-int)
  jpeg_read_header(&info, TRUE);
  if (int64_t{info.image_width} * int64_t{info.image_height} > kMostPixels) {
    std::snprintf(manager.message.data(), manager.message.size(), "announces %u x %u pixels", info.image_width,
                  info.image_height);
    return false;
  }
  // Of four channels libjpeg makes CMYK only; the caller goes on to RGB.
  const bool four = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  info.out_color_space = four ? JCS_CMYK : info.jpeg_color_space == JCS_GRAYSCALE ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(&info);
  pixels.width = info.output_width;
  pixels.height = info.output_height;
  pixels.channels = info.output_components;
  pixels.values.resize(static_cast<std::size_t>(pixels.width * pixels.height * pixels.channels));
  while (info.output_scanline < info.output_height && !manager.warned) {
    JSAMPROW row = pixels.values.data() + static_cast<std::size_t>(info.output_scanline * pixels.width * pixels.channels);
    jpeg_read_scanlines(&info, &row, 1);
  }
  if (manager.warned) return false;
  jpeg_finish_decompress(&info);
  return !manager.warned;
}

// Adobe writes CMYK inverted, and everybody follows; x = 255 − ink.
void to_rgb(Pixels& pixels, bool inverted) {
  std::vector<uint8_t> rgb(static_cast<std::size_t>(pixels.width * pixels.height * 3));
  for (std::size_t i = 0; i < rgb.size() / 3; ++i) {
    const auto paper = [&](std::size_t c) {
      const int value = pixels.values[4 * i + c];
      return inverted ? value : 255 - value;
    };
    for (std::size_t c = 0; c < 3; ++c) rgb[3 * i + c] = static_cast<uint8_t>((paper(c) * paper(3) + 127) / 255);
  }
  pixels.values = std::move(rgb);
  pixels.channels = 3;
}

}  // namespace

Pixels decode_jpeg(const std::vector<uint8_t>& bytes) {
  ErrorManager manager;
  jpeg_decompress_struct info = {};
  info.err = jpeg_std_error(&manager.base);
  manager.base.error_exit = on_error;
  manager.base.emit_message = on_message;
  manager.base.output_message = on_output;
  Pixels pixels;
  const bool whole = decode(bytes, info, manager, pixels);
  const bool inverted = info.saw_Adobe_marker != FALSE;
  jpeg_destroy_decompress(&info);
  if (!whole) throw Error(std::string("is no whole JPEG: ") + manager.message.data());
  if (pixels.channels == 4) to_rgb(pixels, inverted);
  return pixels;
}

}  // namespace mlo
