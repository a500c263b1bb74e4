#include "io/descriptor.h"
#include "mlo/io/checkpoint.h"
#include "mlo/io/file_sink.h"
#include "text.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace mlo {
namespace {

class AtomicFile final : public FileSink {
 public:
  explicit AtomicFile(std::filesystem::path path) : path_(std::move(path)), temporary_(path_) {
    std::error_code unknown;
    require<CheckpointError>(path_.has_filename() && !std::filesystem::is_directory(path_, unknown),
                             "{}: cannot write: it is a folder; give the name of a file in it",
                             path_.string());
    // The rename would put a file in the place of a device such as /dev/full, for everybody.
    require<CheckpointError>(!std::filesystem::is_other(path_, unknown),
                             "{}: cannot write: it is a device, pipe or socket, which a save would "
                             "replace; give the name of a file",
                             path_.string());
    temporary_ += ".tmp";
    // One fixed name, so that what a killed run leaves behind is taken over by the next save. The
    // lock keeps two savers apart; whoever gets it must still look whether the file has been
    // renamed or removed meanwhile.
    do {
      file_ =
          Descriptor(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
      if (!file_.is_open())
        fail("cannot create the file", "check that the folder exists and may be written");
      if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        fail("somebody else is saving to it", "give each run a file of its own");
    } while (!is_in_place());
    if (::ftruncate(file_.get(), 0) != 0) fail("cannot empty the file", "remove it");
  }

  ~AtomicFile() override {
    if (!committed_) ::unlink(temporary_.c_str());
  }

  void write(const void* bytes, std::size_t count) override {
    const auto* rest = static_cast<const char*>(bytes);
    while (count > 0) {
      // The kernel takes at most 2 GiB a call.
      const ssize_t written = ::write(file_.get(), rest, std::min(count, std::size_t{1} << 30));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("cannot write", "make room on the disk or save elsewhere");
      rest += written;
      count -= static_cast<std::size_t>(written);
    }
  }

  void commit() override {
    if (::fsync(file_.get()) != 0)
      fail("cannot bring the bytes to the disk", "make room on the disk or save elsewhere");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0)
      fail(message("cannot rename it to {}", quoted(path_.filename().string())),
           "check that this file may be replaced");
    committed_ = true;
    const auto parent = path_.parent_path();
    const Descriptor folder(
        ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    // Without this a power failure could bring the old file back. Some file systems cannot sync
    // folders and say EINVAL.
    if (!folder.is_open() || (::fsync(folder.get()) != 0 && errno != EINVAL))
      refuse<CheckpointError>(
          "{}: is written, but its folder cannot be synchronized: {}; check the disk",
          path_.string(), std::generic_category().message(errno));
  }

 private:
  bool is_in_place() const {
    struct stat opened = {};
    struct stat named = {};
    return ::fstat(file_.get(), &opened) == 0 && ::lstat(temporary_.c_str(), &named) == 0 &&
           opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
  }

  [[noreturn]] void fail(const std::string& what, const std::string& cure) const {
    refuse<CheckpointError>("{}: {}: {}; what {} held before is untouched; {}", temporary_.string(),
                            what, std::generic_category().message(errno),
                            quoted(path_.filename().string()), cure);
  }

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  Descriptor file_;
  bool committed_ = false;
};

}  // namespace

std::unique_ptr<FileSink> atomic_file(const std::filesystem::path& path) {
  return std::make_unique<AtomicFile>(path);
}

}  // namespace mlo
