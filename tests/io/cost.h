#pragma once

#include <array>
#include <chrono>
#include <csignal>
#include <stdexcept>
#include <string>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct Cost {
  double seconds = 0.0;
  double more_memory = 0.0;  ///< bytes above what this process had at its most
  bool ended = false;        ///< by itself: neither killed nor by a signal
};

/// What a call costs, made in a process of its own, which is stopped after 60 seconds; `result` is
/// what it returns.
template <class Call>
Cost cost_of(Call&& call, std::string& result) {
  std::array<int, 2> pipe = {};
  if (::pipe(pipe.data()) != 0) throw std::runtime_error("no pipe");
  rusage before = {};
  ::getrusage(RUSAGE_SELF, &before);
  const auto start = std::chrono::steady_clock::now();
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGALRM, SIG_DFL);
    ::alarm(60);
    const std::string words = call();
    (void)!::write(pipe[1], words.data(), words.size());
    ::_exit(0);
  }
  ::close(pipe[1]);
  result.clear();
  std::array<char, 4096> part = {};
  for (ssize_t got = 0; (got = ::read(pipe[0], part.data(), part.size())) > 0;)
    result.append(part.data(), static_cast<std::size_t>(got));
  ::close(pipe[0]);
  int status = 0;
  rusage used = {};
  ::wait4(child, &status, 0, &used);
  return {
      .seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
      .more_memory = 1024.0 * static_cast<double>(used.ru_maxrss - before.ru_maxrss),
      .ended = WIFEXITED(status) && WEXITSTATUS(status) == 0};
}
