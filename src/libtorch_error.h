#pragma once

#include "text.h"

#include <exception>
#include <string>
#include <utility>

namespace mlo {

/// Whether it is LibTorch that has thrown, and not the user or this library.
bool is_libtorch(const std::exception& error);
/// What LibTorch says, for a message of ours: the first line, without source files and dispatch
/// tables, and the cure where the cause is a known one.
std::string words_of(const std::exception& error);

/// Calls `call`. What LibTorch throws in it comes out as an E that says who failed ("level 'head'
/// at step 3: the loss") and of what, with the original nested inside (std::rethrow_if_nested). All
/// else that is thrown, the user's own and ours, passes.
template <class E, class Who, class Call>
decltype(auto) naming(const Who& who, Call&& call) {
  try {
    return std::forward<Call>(call)();
  } catch (const std::exception& error) {
    if (!is_libtorch(error)) throw;
    std::throw_with_nested(E(message("{} failed in LibTorch: {}", who(), words_of(error))));
  }
}

}  // namespace mlo
