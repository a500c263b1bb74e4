#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace mlo {

/// The bytes of a regular file. Throws mlo::Error naming the file and what it is for folders, pipes, sockets and devices, which could
/// block for ever or never end, for a file of more than `most` bytes, and for one that cannot be read.
std::string read_file(const std::filesystem::path& file, uint64_t most);

/// Throws mlo::Error, beginning with `origin` (a file's name, say), unless the arrays and objects of a JSON text nest at most 64 deep.
/// To be asked before the text is parsed: what prints or copies JSON recurses, and a stack has no room for 100,000 levels.
void check_json_depth(std::string_view text, const std::string& origin);

}  // namespace mlo
