#pragma once

#pragma GCC visibility push(default)
namespace mlo {

// The version of the library that is running, "major.minor.patch". Thread safe; never throws.
const char* version() noexcept;

}  // namespace mlo
#pragma GCC visibility pop
