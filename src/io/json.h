#pragma once

#include <c10/util/Exception.h>

// nlohmann's assertions abort by default; this library never does.
#define JSON_ASSERT(condition) TORCH_INTERNAL_ASSERT(condition)
#include <nlohmann/json.hpp>
