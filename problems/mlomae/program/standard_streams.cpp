#include "mlomae/program/standard_streams.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>

#include <fcntl.h>
#include <unistd.h>

namespace mlomae {

void guard_standard_streams() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ,
              SIG_IGN);  // of a file that may not become larger: an error like that of a full disk
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) != -1 || errno != EBADF) continue;
    // open() takes the lowest number that is free, which is this one. The wrong way round, so that
    // using it still fails.
    if (::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY) != descriptor) return;
  }
}

bool printed() {
  errno = 0;
  const bool by_streams = static_cast<bool>(std::cout.flush());
  const bool flushed = std::fflush(stdout) == 0;
  const int error = errno;
  if (by_streams && flushed && std::ferror(stdout) == 0) return true;
  std::fprintf(stderr,
               "mlomae: standard output could not be written%s%s; what it was to say is lost\n",
               error != 0 ? ": " : "", error != 0 ? std::strerror(error) : "");
  return false;
}

}  // namespace mlomae
