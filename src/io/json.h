#pragma once

#include <c10/util/Exception.h>

// nlohmann's assertions abort by default; this library never does.
#define JSON_ASSERT(condition) TORCH_INTERNAL_ASSERT(condition)
#include <nlohmann/json.hpp>

#include <string>

namespace mlo {

/// For texts that anybody may have written: in linear time, and what it returns may be printed and
/// copied. Throws mlo::Error, which completes a sentence that begins with the text's name, for what
/// is no JSON, nests too deep or gives a key of an object twice.
nlohmann::json parsed_json(const std::string& text);

/// The beginning of a text from a file, as words for a message: what is in the file may be long,
/// and of any bytes.
std::string excerpt(const std::string& text);

}  // namespace mlo
