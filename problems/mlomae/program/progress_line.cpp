#include "mlomae/program/progress_line.h"

#include "mlomae/message.h"

#include <cstdio>

#include <unistd.h>

namespace mlomae {

Progress progress_line(const std::string& what) {
  if (::isatty(::fileno(stderr)) != 1) return {};
  return [what](int64_t done, int64_t total) {
    std::fputs(message("\r{} {}/{}{}", what, done, total, done == total ? "\n" : "").c_str(),
               stderr);
  };
}

}  // namespace mlomae
