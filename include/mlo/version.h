#pragma once

namespace [[gnu::visibility("default")]] mlo {

// The version of the library that is running, "major.minor.patch". Thread safe; never throws.
const char* version() noexcept;

}  // namespace mlo
