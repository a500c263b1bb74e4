#include "data/exif.h"
#include "data/image_file.h"
#include "mlo/data/images.h"
#include "mlo/io/checkpoint.h"
#include "mlo/io/file_sink.h"
#include "text.h"

#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>

namespace mlo {
namespace {

struct Reader {
  const uint8_t* next = nullptr;
  std::size_t size = 0, left = 0;
  std::jmp_buf back = {};
  std::array<char, 200> message = {};
};

extern "C" void on_png_error(png_structp png, png_const_charp text) {
  auto* reader = static_cast<Reader*>(png_get_error_ptr(png));
  std::strncpy(reader->message.data(), text, reader->message.size() - 1);
  std::longjmp(reader->back, 1);
}
extern "C" void on_png_warning(png_structp /*png*/, png_const_charp /*text*/) {
}  // of colour profiles and the like
extern "C" void on_png_read(png_structp png, png_bytep out, png_size_t count) {
  auto* reader = static_cast<Reader*>(png_get_io_ptr(png));
  if (count > reader->left) png_error(png, "it ends too early");
  std::memcpy(out, reader->next, count);
  reader->next += count;
  reader->left -= count;
}

// Whether the chunks before the pixels are as long as they announce: libpng makes room for an eXIf
// of 2 GB before it sees that the file has ended, whatever png_set_chunk_malloc_max says.
bool chunks_fit(const std::vector<uint8_t>& bytes) {
  for (std::size_t at = 8; at + 8 <= bytes.size();) {
    const uint8_t* head = bytes.data() + at;
    const uint64_t length = uint64_t{head[0]} << 24 | uint64_t{head[1]} << 16 |
                            uint64_t{head[2]} << 8 | uint64_t{head[3]};
    if (std::memcmp(head + 4, "IDAT", 4) == 0) return true;  // which is read bit by bit
    if (length > bytes.size() - at - 8) return false;
    at += 8 + length + 4;
  }
  return true;
}

// As in the JPEG reader: only plain values between setjmp and the end.
bool decode(Reader& reader, png_structp png, png_infop info, int64_t wanted, Pixels& pixels,
            std::vector<png_bytep>& rows) {
  if (setjmp(reader.back) != 0) return false;
  png_set_read_fn(png, &reader, on_png_read);
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
  png_set_crc_action(png, PNG_CRC_QUIET_USE,
                     PNG_CRC_QUIET_USE);  // or a fuzzer never gets past the first
  png_set_option(png, PNG_IGNORE_ADLER32, PNG_OPTION_ON);
#endif
  // A text or colour profile of a few kilobytes may unpack to 8 MB, and there may be a thousand of
  // them. None is needed here.
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_AS_DEFAULT,
                              reinterpret_cast<png_const_bytep>("eXIf"), 1);
  png_read_info(png, info);
  const png_byte colour = png_get_color_type(png, info);
  // As PIL's convert("RGB"): 16 bits lose their lower half, palettes and few bits are expanded,
  // alpha is dropped.
  if (png_get_bit_depth(png, info) == 16) png_set_strip_16(png);
  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (colour == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png);
  if (png_get_valid(png, info, PNG_INFO_tRNS) != 0) png_set_tRNS_to_alpha(png);
  png_set_strip_alpha(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  pixels.width = png_get_image_width(png, info);
  pixels.height = png_get_image_height(png, info);
  pixels.channels = png_get_channels(png, info);
  if (!may_be_read({.width = pixels.width, .height = pixels.height, .channels = pixels.channels},
                   wanted, reader.size))
    png_error(png, "it announces more pixels than so few bytes can hold");
  pixels.values.resize(static_cast<std::size_t>(pixels.width * pixels.height * pixels.channels));
  rows.resize(static_cast<std::size_t>(pixels.height));
  for (std::size_t y = 0; y < rows.size(); ++y)
    rows[y] = pixels.values.data() + y * static_cast<std::size_t>(pixels.width * pixels.channels);
  png_read_image(png, rows.data());
  png_read_end(png, info);
  png_bytep exif = nullptr;
  if (png_uint_32 count = 0; png_get_eXIf_1(png, info, &count, &exif) != 0)
    pixels.orientation = exif_orientation(exif, count);
  return true;
}

}  // namespace

Pixels decode_png(const std::vector<uint8_t>& bytes, int64_t wanted) {
  if (!chunks_fit(bytes)) throw Error("is no whole PNG: it ends too early");
  Reader reader;
  reader.next = bytes.data();
  reader.size = reader.left = bytes.size();
  Pixels pixels;
  std::vector<png_bytep> rows;
  png_structp png =
      png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, on_png_error, on_png_warning);
  if (png == nullptr) throw Error("cannot be decoded: libpng has no memory");
  png_infop info = png_create_info_struct(png);
  const bool whole = info != nullptr && decode(reader, png, info, wanted, pixels, rows);
  png_destroy_read_struct(&png, &info, nullptr);
  if (!whole) refuse<Error>("is no whole PNG: {}", reader.message.data());
  return pixels;
}

std::vector<uint8_t> encode_png(const at::Tensor& image) {
  require<Error>(image.defined() && image.dim() == 3 && image.scalar_type() == at::kByte &&
                     (image.size(0) == 1 || image.size(0) == 3) && image.numel() > 0,
                 "encode_png: the image must be uint8 [1 or 3, height, width], with pixels in it");
  const at::Tensor rows = image.cpu().permute({1, 2, 0}).contiguous();
  png_image png = {};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(rows.size(1));
  png.height = static_cast<png_uint_32>(rows.size(0));
  png.format = rows.size(2) == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::vector<uint8_t> bytes(size);
  const bool written =
      png_image_write_to_memory(&png, bytes.data(), &size, /*convert_to_8_bit=*/0,
                                rows.const_data_ptr<uint8_t>(), /*row_stride=*/0, nullptr) != 0;
  require<Error>(written, "encode_png: {}", png.message);
  bytes.resize(size);
  return bytes;
}

void write_png(const std::filesystem::path& file, const at::Tensor& image) {
  const std::vector<uint8_t> bytes = encode_png(image);
  const auto sink = atomic_file(file);
  sink->write(bytes.data(), bytes.size());
  sink->commit();
}

}  // namespace mlo
