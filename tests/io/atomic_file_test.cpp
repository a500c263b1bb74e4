#include "io/files.h"

#include <mlo/error.h>
#include <mlo/io/checkpoint.h>
#include <mlo/io/file_sink.h>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "catch.h"

namespace {

using mlo::CheckpointError;
using mlo::State;

State state_of(int64_t steps) {
  State state;
  state.set("steps", steps);
  state.set("weight", torch::full({7}, static_cast<double>(steps)));
  return state;
}

/// A disk with room for so many bytes.
class FullDisk final : public mlo::FileSink {
 public:
  FullDisk(const std::filesystem::path& path, std::size_t room)
      : file_(mlo::atomic_file(path)), room_(room) {}
  void write(const void* bytes, std::size_t count) override {
    const std::size_t fits = std::min(count, room_);
    file_->write(bytes, fits);
    room_ -= fits;
    if (fits < count) throw CheckpointError("no space left on this device");
  }
  void commit() override { file_->commit(); }

 private:
  std::unique_ptr<mlo::FileSink> file_;
  std::size_t room_;
};

/// Files of this process can be at most so long: what the kernel says then is what it says of a
/// full disk, but for the word.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t size) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {size, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_ = {};
};

}  // namespace

TEST_CASE("A disk that fills after any byte leaves the previous checkpoint and nothing else",
          "[checkpoint][sink]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.mlo";
  mlo::write_checkpoint(path, state_of(1));
  const std::string before = read_bytes(path);
  for (std::size_t room = 0; room < before.size(); ++room) {
    const auto full = [room](const auto& file) { return std::make_unique<FullDisk>(file, room); };
    REQUIRE_THROWS_WITH(mlo::write_checkpoint(path, state_of(2), full),
                        "no space left on this device");
    REQUIRE(read_bytes(path) == before);
    REQUIRE(folder.entries() == 1);
  }
  const auto enough = [&](const auto& file) {
    return std::make_unique<FullDisk>(file, before.size());
  };
  mlo::write_checkpoint(path, state_of(2), enough);
  CHECK(mlo::read_checkpoint(path).integer("steps") == 2);
  CHECK(folder.entries() == 1);
}

TEST_CASE(
    "A write that the kernel refuses at any byte leaves the previous checkpoint and nothing else",
    "[checkpoint][sink]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.mlo";
  mlo::write_checkpoint(path, state_of(1));
  const std::string before = read_bytes(path);
  for (std::size_t room = 0; room < before.size(); ++room) {
    std::string message;
    {
      const FileSizeLimit limit(room);
      message = message_of<CheckpointError>([&] { mlo::write_checkpoint(path, state_of(2)); });
    }
    INFO(room << ": " << message);
    REQUIRE_THAT(message, Contains(path.string()) && Contains(std::strerror(EFBIG)) &&
                              Contains("untouched") && Contains("make room"));
    REQUIRE(read_bytes(path) == before);
    REQUIRE(folder.entries() == 1);
  }
  const FileSizeLimit limit(before.size());
  mlo::write_checkpoint(path, state_of(2));
  CHECK(mlo::read_checkpoint(path).integer("steps") == 2);
}

TEST_CASE("A sink that is dropped before commit leaves what was there", "[checkpoint][sink]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.mlo";
  mlo::atomic_file(path)->write("lost", 4);
  CHECK(folder.entries() == 0);
  const auto write = [&](const std::string& bytes) {
    const auto file = mlo::atomic_file(path);
    file->write(bytes.data(), bytes.size());
    CHECK(read_bytes(path) != bytes);  // nothing is seen before commit
    file->commit();
  };
  write("first");
  CHECK(read_bytes(path) == "first");
  mlo::atomic_file(path)->write("lost", 4);
  CHECK(read_bytes(path) == "first");
  write("second");
  CHECK(read_bytes(path) == "second");
  CHECK(folder.entries() == 1);
}

TEST_CASE("What a killed save left behind is taken over by the next", "[checkpoint][sink]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.mlo";
  write_bytes(folder / "run.mlo.tmp", std::string(10000, 'x'));
  mlo::write_checkpoint(path, state_of(3));
  CHECK(mlo::read_checkpoint(path).integer("steps") == 3);
  CHECK(folder.entries() == 1);
}

TEST_CASE("Two savers of one file are kept apart", "[checkpoint][sink]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.mlo";
  auto first = mlo::atomic_file(path);
  first->write("first", 5);
  CHECK_THROWS_AS(mlo::atomic_file(path), CheckpointError);
  CHECK_THROWS_WITH(mlo::atomic_file(path),
                    Contains("somebody else is saving") && Contains("a file of its own"));
  first->commit();
  CHECK(read_bytes(path) == "first");
  first.reset();
  mlo::atomic_file(path)->commit();
  CHECK(read_bytes(path).empty());
}

TEST_CASE("A file that cannot be written is an error that names it, the reason and the cure",
          "[checkpoint][sink]") {
  const TemporaryFolder folder;
  const auto message = [](const std::filesystem::path& path) {
    return message_of<CheckpointError>([&] { mlo::write_checkpoint(path, state_of(1)); });
  };
  CHECK_THAT(message(folder / "none/run.mlo"),
             Contains("none/run.mlo") && Contains("No such file") && Contains("folder exists"));
  CHECK_THAT(message(folder / ""), Contains("it is a folder"));
  CHECK_THAT(message(folder / "."), Contains("it is a folder"));
  CHECK_THAT(message({}), Contains("give the name of a file"));
  // Somebody else's link under the name of the temporary file is not followed.
  write_bytes(folder / "precious", "data");
  std::filesystem::create_symlink(folder / "precious", folder / "run.mlo.tmp");
  CHECK_THAT(message(folder / "run.mlo"), Contains("cannot create the file"));
  CHECK(read_bytes(folder / "precious") == "data");
}

TEST_CASE("A checkpoint has the permissions of an ordinary new file", "[checkpoint][sink]") {
  const TemporaryFolder folder;
  const mode_t mask = ::umask(027);
  mlo::write_checkpoint(folder / "run.mlo", state_of(1));
  ::umask(mask);
  struct stat status = {};
  REQUIRE(::stat((folder / "run.mlo").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0640);
}
