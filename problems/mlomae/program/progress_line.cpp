#include "mlomae/program/progress_line.h"

#include <cstdio>

#include <unistd.h>

namespace mlomae {

Progress progress_line(const std::string& what) {
  if (::isatty(::fileno(stderr)) != 1) return {};
  return [what](int64_t done, int64_t total) {
    std::fprintf(stderr, "\r%s %lld/%lld%s", what.c_str(), static_cast<long long>(done),
                 static_cast<long long>(total), done == total ? "\n" : "");
  };
}

}  // namespace mlomae
