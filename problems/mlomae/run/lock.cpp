#include "mlomae/run/lock.h"

#include "mlomae/message.h"

#include <array>
#include <cerrno>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace mlomae {

RunLock::RunLock(const std::filesystem::path& folder) : file_(RunDirectory{folder}.lock()) {
  const auto fail = [&](const std::string& what) {
    if (descriptor_ >= 0) ::close(descriptor_);
    refuse("{} {}", folder.string(), what);
  };
  while (true) {
    descriptor_ =
        ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (descriptor_ < 0) fail("cannot be written: " + std::generic_category().message(errno));
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) break;  // a file system without locks
      std::array<char, 32> owner = {};
      const ssize_t size = ::read(descriptor_, owner.data(), owner.size() - 1);
      fail(message(
          "is being trained by another process{}; wait for it, stop it with kill -TERM, or give "
          "another --out",
          size > 0 ? message(" ({})", owner.data()) : ""));
    }
    // Whoever had it before may have removed the file between our two calls: then we hold a file
    // that nobody else will find.
    struct stat held = {}, found = {};
    if (::fstat(descriptor_, &held) == 0 && ::stat(file_.c_str(), &found) == 0 &&
        held.st_ino == found.st_ino)
      break;
    ::close(descriptor_);
  }
  const std::string owner = message("process {}", ::getpid());
  if (::ftruncate(descriptor_, 0) != 0 ||
      ::pwrite(descriptor_, owner.data(), owner.size(), 0) < 0) {
    // It is held all the same; only whoever meets it is told less.
  }
}

RunLock::~RunLock() {
  ::unlink(file_.c_str());
  ::close(descriptor_);
}

RunPlace::RunPlace(const RunDirectory& directory, bool resume)
    : path_(directory.path), made_(!resume && directory.create()) {
  lock_.emplace(path_);
  if (!resume) directory.create();  // another process may have been faster
}

RunPlace::~RunPlace() {
  lock_.reset();
  std::error_code ignored;
  if (made_) std::filesystem::remove(path_, ignored);  // only what is empty
}

}  // namespace mlomae
