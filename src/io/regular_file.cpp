#include "io/regular_file.h"

#include "text.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace mlo {
namespace {

int opened(const std::filesystem::path& path) {
  while (true) {
    // Without O_NONBLOCK a pipe that nobody writes to would wait here.
    const int number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (number >= 0 || errno != EINTR) return number;
  }
}

std::string kind(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

RegularFile::RegularFile(const std::filesystem::path& path, Fail fail)
    : fail_(std::move(fail)), file_(opened(path)) {
  struct stat status = {};
  if (!file_.is_open() || ::fstat(file_.get(), &status) != 0)
    fail_(message("cannot be opened: {}", std::generic_category().message(errno)),
          "check that it is there and may be read");
  if (!S_ISREG(status.st_mode))
    fail_(message("is not a file but {}", kind(status.st_mode)), "give a regular file");
  size_ = left_ = static_cast<uint64_t>(status.st_size);
}

void RegularFile::read(void* bytes, uint64_t count) {
  if (count > left_) fail_("ends too early", "it is truncated: get it again");
  auto* next = static_cast<char*>(bytes);
  while (count > 0) {
    const ssize_t got = ::read(file_.get(), next, std::min(count, uint64_t{1} << 30));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      fail_(message("cannot be read: {}", std::generic_category().message(errno)),
            "check the disk");
    if (got == 0) fail_("became shorter while it was read", "read it when nobody writes to it");
    next += got;
    count -= static_cast<uint64_t>(got);
    left_ -= static_cast<uint64_t>(got);
  }
}

std::string read_file(const std::filesystem::path& path, uint64_t most) {
  const auto fail = [&](const std::string& what, const std::string& cure) {
    refuse<Error>("{}: {}; {}", path.string(), what, cure);
  };
  RegularFile file(path, fail);
  if (file.size() > most)
    fail(message("has {} bytes, expected at most {}", file.size(), most), "give another file");
  std::string bytes(file.size(), '\0');
  file.read(bytes.data(), bytes.size());
  return bytes;
}

}  // namespace mlo
