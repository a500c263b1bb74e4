// In a working folder that was removed, MKL ends the process with a riddle while LibTorch is
// loaded, which is before main.
#include <cerrno>

#include <sys/syscall.h>
#include <unistd.h>

namespace {

// Of the system's calls alone: nothing else has been set up yet, sanitizers included.
__attribute__((no_sanitize("address", "undefined"))) void check_working_folder() {
  static char place[4096];  // NOLINT(*-avoid-c-arrays)
  if (::syscall(SYS_getcwd, place, sizeof(place)) >= 0 || errno != ENOENT) return;
  constexpr char kText[] =  // NOLINT(*-avoid-c-arrays)
      "mlomae: the folder that it was called in has been removed; change to one that is there (cd) "
      "and call it again\n";
  ::syscall(SYS_write, STDERR_FILENO, kText, sizeof(kText) - 1);
  ::syscall(SYS_exit_group, 2);
}

// The loader calls what is in this section before it initializes a library.
__attribute__((section(".preinit_array"),
               used)) void (*const kBeforeLibraries)() = check_working_folder;

}  // namespace
