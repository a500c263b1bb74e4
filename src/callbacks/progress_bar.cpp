#include "mlo/callbacks/progress_bar.h"
#include "callbacks/progress_line.h"
#include "mlo/callback.h"
#include "text.h"

#include <sys/ioctl.h>
#include <unistd.h>

namespace mlo {
namespace {

class ProgressBar final : public Callback {
 public:
  ProgressBar(std::FILE* stream, Throughput throughput)
      : stream_(stream), throughput_(std::move(throughput)) {
    require(stream != nullptr,
            "progress_bar: the stream is null; give an open one, stderr for example");
    terminal_ = ::isatty(::fileno(stream)) == 1;
  }
  ~ProgressBar() override { finish(); }  // a run that ends by an exception says no on_stop

  void on_start(const Engine& /*engine*/) override {
    rate_ = {};
    drawn_at_ = -kInterval;
  }

  void on_step(const StepReport& report) override {
    if (!terminal_) return;
    step_ = report.step;
    steps_ = report.steps;
    seconds_ = report.seconds;
    // The losses are read only when they are shown: on a GPU that waits for the device.
    if (seconds_ - drawn_at_ >= kInterval) draw(report.engine);
  }

  void on_warning(const std::string& text) override {
    if (terminal_) put(message("\r\x1b[Kwarning: {}\n{}", text, line_));
  }

  void on_stop(const Engine& engine, const std::string& /*reason*/) override {
    if (!line_.empty() && drawn_step_ != step_) draw(engine);
    finish();
  }

 private:
  static constexpr double kInterval = 0.1;  // seconds

  void draw(const Engine& engine) {
    rate_.add(step_, seconds_);
    drawn_at_ = seconds_;
    drawn_step_ = step_;
    const int64_t left = steps_ - step_;
    line_ = progress_line(
        {.step = step_,
         .steps = steps_,
         .seconds_left = left > 0 ? static_cast<double>(left) * rate_.seconds_per_step() : 0.0,
         .rate = throughput_.per_step / rate_.seconds_per_step(),
         .unit = throughput_.per_step > 0.0 ? throughput_.unit : "",
         .losses = StepReport{step_, steps_, seconds_, engine}.losses()},
        columns());
    put(message("\r{}\x1b[K", line_));
  }

  void finish() {
    if (!line_.empty()) put("\n");
    line_.clear();
  }

  int columns() const {
    winsize size = {};
    const bool known = ::ioctl(::fileno(stream_), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return (known ? size.ws_col : 80) - 1;  // a terminal may wrap after its last column
  }

  // A terminal that is gone must not end a run: what the stream says to this is not looked at.
  void put(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stream_);
    std::fflush(stream_);
  }

  std::FILE* stream_;
  Throughput throughput_;
  bool terminal_;
  RecentRate rate_;
  int64_t step_ = 0;
  int64_t steps_ = 0;
  double seconds_ = 0.0;
  double drawn_at_ = -kInterval;
  int64_t drawn_step_ = -1;
  std::string line_;  // what stands in the terminal's last line; empty: nothing
};

}  // namespace

std::unique_ptr<Callback> progress_bar(std::FILE* stream, Throughput throughput) {
  return std::make_unique<ProgressBar>(stream, std::move(throughput));
}

}  // namespace mlo
