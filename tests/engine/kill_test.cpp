// A run killed at any moment and resumed is, bit for bit, the run that was never killed. A program
// of its own: it forks, and LibTorch forbids that once a backward pass has run.
#include <mlo/io/checkpoint.h>
#include <mlo/io/file_sink.h>
#include "engine/resume_problem.h"

#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <random>
#include <thread>

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

/// A disk so slow that a run spends most of its time in the middle of a save.
class SlowDisk final : public mlo::FileSink {
 public:
  explicit SlowDisk(const std::filesystem::path& path) : file_(mlo::atomic_file(path)) {}
  void write(const void* bytes, std::size_t count) override {
    for (std::size_t i = 0; i < count; ++i) {
      file_->write(static_cast<const char*>(bytes) + i, 1);
      if (++written_ % 256 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  void commit() override { file_->commit(); }

 private:
  std::unique_ptr<mlo::FileSink> file_;
  std::size_t written_ = 0;
};

/// Resumes the run if there is a checkpoint, else begins it; to its end.
void run_to_the_end(const std::filesystem::path& file, bool slow) {
  ResumeProblem problem;
  auto options = ResumeProblem::options(file);
  options.checkpoint_every = 1;
  if (slow)
    options.checkpoint_sink = [](const std::filesystem::path& path) {
      return std::make_unique<SlowDisk>(path);
    };
  Engine engine(options);
  problem.add_to(engine);
  if (std::filesystem::exists(file)) engine.load(file);
  engine.run();
}

pid_t start(const std::filesystem::path& file, bool slow) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  try {
    run_to_the_end(file, slow);
    ::_exit(0);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "the child: %s\n", error.what());
    ::_exit(1);
  }
}

int wait_for(pid_t child) {
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

bool ended_well(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

}  // namespace

TEST_CASE("A run killed at fifty random moments is resumed bit for bit each time",
          "[engine][kill]") {
  const auto threads = std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
  REQUIRE(threads == 1);  // or a fork would be of one thread in the middle of what the others do

  const TemporaryFolder folder;
  const auto duration = [&](bool slow) {
    const auto begin = Clock::now();
    REQUIRE(ended_well(wait_for(start(folder / (slow ? "slow.mlo" : "reference.mlo"), slow))));
    return Seconds(Clock::now() - begin).count();
  };
  const double fast = duration(false), slow = duration(true);
  const State reference = mlo::read_checkpoint(folder / "reference.mlo");
  REQUIRE(reference.integer("engine/steps") == ResumeProblem::kSteps);
  CHECK(difference(mlo::read_checkpoint(folder / "slow.mlo"), reference) == "");

  std::mt19937 random(2718);
  int killed = 0, in_a_save = 0, with_checkpoint = 0, without_checkpoint = 0;
  for (int attempt = 0; killed < 50 && attempt < 300; ++attempt) {
    const bool on_slow_disk = killed % 2 == 0;
    const double share = std::uniform_real_distribution<double>(0.0, 1.0)(random);
    const auto file = folder / ("run" + std::to_string(attempt));
    const auto left_over = folder / ("run" + std::to_string(attempt) + ".tmp");

    const pid_t child = start(file, on_slow_disk);
    std::this_thread::sleep_for(Seconds(share * (on_slow_disk ? slow : fast)));
    ::kill(child, SIGKILL);
    const int status = wait_for(child);
    if (!WIFSIGNALED(status)) {  // it was quicker
      REQUIRE(ended_well(status));
      continue;
    }
    ++killed;
    if (std::filesystem::exists(left_over)) ++in_a_save;
    ++(std::filesystem::exists(file) ? with_checkpoint : without_checkpoint);

    INFO("killed after " << share << " of a run, " << (on_slow_disk ? "slow" : "fast") << " disk");
    REQUIRE(ended_well(wait_for(start(file, false))));
    CHECK(difference(mlo::read_checkpoint(file), reference) == "");
    CHECK_FALSE(std::filesystem::exists(left_over));
  }
  CHECK(killed == 50);
  INFO(in_a_save << " in a save, " << with_checkpoint << " after a first save, "
                 << without_checkpoint << " before");
  CHECK(in_a_save >= 10);
  CHECK(with_checkpoint >= 10);
}
