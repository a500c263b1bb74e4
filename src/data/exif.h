#pragma once

#include <cstddef>
#include <cstdint>

namespace mlo {

/// The orientation (1 to 8) that an EXIF block, a TIFF file from its byte order on, gives its
/// image; 1, as stored, where it says none.
int exif_orientation(const uint8_t* bytes, std::size_t size);

}  // namespace mlo
