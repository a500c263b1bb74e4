#include "mlo/version.h"

namespace mlo {

const char* version() noexcept { return MLO_VERSION; }

}  // namespace mlo
