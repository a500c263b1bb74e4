#include "io/files.h"

#include "io/json.h"

#include <mlo/mlo.h>

#include <pty.h>
#include <sys/ioctl.h>

#include <cmath>
#include <thread>

#include "catch.h"

namespace {

using mlo::Batch;
using mlo::Callback;
using mlo::ConfigError;
using mlo::Engine;
using mlo::StepReport;

/// ½(w − target)² and a metric of it; `validate` says how far w is from `judged_by`.
struct Approach final : mlo::Problem {
  Approach(at::Tensor w, double target, double judged_by)
      : Problem(mlo::trains(w)), w(w), target(target), judged_by(judged_by) {}
  mlo::Evaluation loss(const Batch&) override {
    const at::Tensor difference = w - target;
    return {0.5 * difference.square().sum(), {{"distance", difference.detach().abs().sum()}}};
  }
  std::map<std::string, double> validate() override {
    return {{"error", std::abs(w.item<double>() - judged_by)}};
  }
  at::Tensor w;
  double target;
  double judged_by;
};

at::Tensor parameter() {
  return torch::zeros({}, torch::dtype(torch::kDouble).requires_grad(true));
}

void add_level(Engine& engine, double judged_by = 1.0) {
  engine.add("only", Approach(parameter(), 1.0, judged_by), {.optimizer = mlo::sgd({.lr = 0.25})});
}

std::vector<nlohmann::json> parsed(const std::filesystem::path& path) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_bytes(path));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

/// A terminal of the test's own: `stream` writes to it, `screen` is what has arrived.
class Terminal {
 public:
  explicit Terminal(unsigned short columns) {
    winsize size = {.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    int inside = -1;
    if (::openpty(&outside_, &inside, nullptr, nullptr, &size) != 0)
      throw std::runtime_error("no pseudo-terminal");
    stream_ = ::fdopen(inside, "w");
    reader_ = std::thread([this] {
      char buffer[4096];
      for (ssize_t got = 0; (got = ::read(outside_, buffer, sizeof(buffer))) > 0;)
        screen_.append(buffer, static_cast<std::size_t>(got));
    });
  }
  ~Terminal() {
    if (reader_.joinable()) screen();
  }
  std::FILE* stream() const { return stream_; }
  void resize(unsigned short columns) const {
    const winsize size = {.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    ::ioctl(outside_, TIOCSWINSZ, &size);
  }
  /// Closes the terminal.
  const std::string& screen() {
    std::fclose(stream_);
    reader_.join();
    ::close(outside_);
    return screen_;
  }

 private:
  int outside_ = -1;
  std::FILE* stream_ = nullptr;
  std::string screen_;
  std::thread reader_;
};

/// What was drawn, one entry a redraw.
std::vector<std::string> redraws(const std::string& screen) {
  std::vector<std::string> lines;
  const std::string clear = "\x1b[K";
  for (std::size_t at = 0, end = 0; (end = screen.find(clear, at)) != std::string::npos;
       at = end + clear.size())
    lines.push_back(screen.substr(screen.rfind('\r', end) + 1, end - screen.rfind('\r', end) - 1));
  return lines;
}

}  // namespace

TEST_CASE("A step's report holds the losses and metrics of all levels, lowest first",
          "[callback]") {
  struct Watch final : Callback {
    void on_step(const StepReport& report) override {
      losses = report.losses();
      metrics = report.metrics();
      steps.push_back(report.step);
    }
    std::vector<std::pair<std::string, double>> losses, metrics;
    std::vector<int64_t> steps;
  };
  Engine engine({.steps = 3});
  add_level(engine);
  const auto watch = std::make_shared<Watch>();
  engine.add(watch);
  engine.run();
  CHECK(watch->steps == std::vector<int64_t>{1, 2, 3});
  REQUIRE(watch->losses.size() == 1);
  CHECK(watch->losses[0].first == "only");
  CHECK(watch->losses[0].second ==
        Approx(0.5 * std::pow(0.75, 4)));  // the third step's, before its update
  REQUIRE(watch->metrics.size() == 1);
  CHECK(watch->metrics[0].first == "only.distance");
  CHECK(watch->metrics[0].second == Approx(0.75 * 0.75));
}

TEST_CASE("A JSON-lines log can be parsed back line by line", "[callback][json]") {
  const TemporaryFolder folder;
  const auto run = [&](int64_t steps) {
    Engine engine({.steps = steps, .validate_every = 2});
    add_level(engine);
    engine.add(mlo::json_lines(folder / "log.jsonl", 2));
    engine.run();
  };
  run(4);
  const auto lines = parsed(folder / "log.jsonl");
  std::vector<std::string> events;
  for (const auto& line : lines) events.push_back(line.at("event"));
  CHECK(events ==
        std::vector<std::string>{"start", "step", "validation", "step", "validation", "stop"});
  CHECK(lines[0].at("levels") == std::vector<std::string>{"only"});
  CHECK(lines[0].at("step") == 0);
  CHECK(lines[0].at("steps") == 4);
  CHECK(lines[1].at("step") == 2);
  CHECK(lines[1].at("losses").at("only").get<double>() == 0.5 * 0.75 * 0.75);
  CHECK(lines[1].at("metrics").at("only.distance") == 0.75);
  CHECK(lines[1].at("seconds").get<double>() >= 0.0);
  CHECK(lines[2].at("metrics").at("only.error") == Approx(0.75 * 0.75));
  CHECK(lines[2].at("best") == false);
  CHECK(lines.back().at("step") == 4);
  CHECK(lines.back().at("reason").is_string());

  write_bytes(folder / "log.jsonl",
              "{\"event\": \"stop\"}\n{\"event\": \"st");  // a run killed in the middle of a line
  run(2);
  const std::string text = read_bytes(folder / "log.jsonl");
  CHECK_THAT(text, Contains("{\"event\": \"st\n{\"event\":\"start\""));
}

TEST_CASE("Each line of a JSON-lines log is there at once, whatever is in it", "[callback][json]") {
  const TemporaryFolder folder;
  const Engine engine;
  const auto log = mlo::json_lines(folder / "log.jsonl");
  log->on_validation(engine,
                     {.step = 7,
                      .metrics = {{"a.nan", NAN}, {"a.inf", -INFINITY}, {"a.third", 1.0 / 3.0}},
                      .best = true});
  auto lines = parsed(folder / "log.jsonl");
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].at("metrics").at("a.nan").is_null());
  CHECK(lines[0].at("metrics").at("a.inf").is_null());
  CHECK(lines[0].at("metrics").at("a.third").get<double>() == 1.0 / 3.0);
  CHECK(lines[0].at("best") == true);
  log->on_warning("two\nlines, \"quotes\" and a byte that is no UTF-8: \xFF");
  lines = parsed(folder / "log.jsonl");
  REQUIRE(lines.size() == 2);
  CHECK(lines[1].at("text") == "two\nlines, \"quotes\" and a byte that is no UTF-8: \xEF\xBF\xBD");

  const auto again = mlo::json_lines(folder / "log.jsonl");  // appends
  again->on_warning("third");
  CHECK(parsed(folder / "log.jsonl").size() == 3);
}

TEST_CASE("A JSON-lines log that cannot be written is an error", "[callback][json]") {
  const TemporaryFolder folder;
  const auto file = folder / "log.jsonl";
  CHECK_THROWS_AS(mlo::json_lines(file, 0), ConfigError);
  CHECK_THROWS_WITH(mlo::json_lines(file, 0), Contains("every = 0") && Contains("at least 1"));
  CHECK(folder.entries() == 0);
  CHECK_THROWS_AS(mlo::json_lines(folder / "none/log.jsonl"), ConfigError);
  CHECK_THROWS_WITH(mlo::json_lines(folder / "none/log.jsonl"),
                    Contains("none/log.jsonl") && Contains("No such file"));
  const std::string full =
      message_of<mlo::Error>([] { mlo::json_lines("/dev/full")->on_warning("lost"); });
  CHECK_THAT(full, Contains("/dev/full") && Contains("No space left") && Contains("make room"));
}

TEST_CASE("The best checkpoint is that of the best validation", "[callback][checkpoint]") {
  const TemporaryFolder folder;
  const auto best = folder / "best.mlo";
  // w goes 0, ¼, 7/16, 37/64, … to 1: nearest to 0.45 after two steps.
  Engine engine({.steps = 6,
                 .validate_every = 1,
                 .early_stopping = {.metric = "only.error", .patience = 100}});
  add_level(engine, 0.45);
  engine.add(mlo::best_checkpoint(best));
  engine.run();
  CHECK(engine.steps_taken() == 6);
  engine.load(best);
  CHECK(engine.steps_taken() == 2);
  CHECK(engine.parameters("only")[0].item<double>() == Approx(7.0 / 16.0));
}

TEST_CASE("A best checkpoint of a run that names no best is refused", "[callback][checkpoint]") {
  CHECK_THROWS_AS(mlo::best_checkpoint(""), ConfigError);
  const TemporaryFolder folder;
  for (const mlo::EngineOptions& options :
       {mlo::EngineOptions{.steps = 2}, mlo::EngineOptions{.steps = 2, .validate_every = 1}}) {
    Engine engine(options);
    add_level(engine);
    engine.add(mlo::best_checkpoint(folder / "best.mlo"));
    CHECK_THROWS_AS(engine.run(), ConfigError);
    CHECK_THROWS_WITH(engine.run(), Contains("EarlyStopping::metric = ''") && Contains("set both"));
    CHECK(engine.steps_taken() == 0);
  }
}

TEST_CASE("A progress bar draws in place, ten times a second at most, and ends its line",
          "[callback][progress]") {
  Terminal terminal(60);
  {
    const Engine engine;
    const auto bar = mlo::progress_bar(terminal.stream());
    bar->on_start(engine);
    for (int64_t step = 1; step <= 1000; ++step) {  // two seconds
      if (step == 500) terminal.resize(40);
      bar->on_step({.step = step,
                    .steps = 2000,
                    .seconds = static_cast<double>(step) * 0.002,
                    .engine = engine});
    }
    bar->on_stop(engine, "request");
  }
  const std::string screen = terminal.screen();
  const auto drawn = redraws(screen);
  CHECK(drawn.size() >= 15);
  CHECK(drawn.size() <= 22);  // twenty, and the last state when the run stops
  for (const std::string& line : drawn) CHECK(line.size() <= 59);
  CHECK(drawn.back().size() <= 39);
  CHECK_THAT(drawn.back(), Contains("1000/2000  50%  eta 0:02"));
  CHECK(screen.substr(screen.size() - 2) == "\r\n");
  CHECK(screen.find('\n') == screen.size() - 1);
}

TEST_CASE("A progress bar shows a run's losses, and warnings above itself",
          "[callback][progress]") {
  Terminal terminal(80);
  {
    Engine engine({.steps = 3});
    add_level(engine);
    const std::shared_ptr<Callback> bar = mlo::progress_bar(terminal.stream());
    engine.add(bar);
    engine.run();
    bar->on_warning("the disk is nearly full");
  }
  const std::string screen = terminal.screen();
  CHECK_THAT(redraws(screen).front(), Contains("1/3  33%") && Contains("only 0.5"));
  CHECK_THAT(screen, Contains("] 3/3  100%  eta 0:00  only 0.158\x1b[K\r\n"));
  CHECK_THAT(screen, Contains("\x1b[Kwarning: the disk is nearly full\r\n"));
}

TEST_CASE("A progress bar of a run that throws ends its line", "[callback][progress]") {
  Terminal terminal(80);
  {
    const Engine engine;
    const auto bar = mlo::progress_bar(terminal.stream());
    bar->on_start(engine);
    bar->on_step({.step = 1, .steps = 2, .seconds = 0.5, .engine = engine});
  }
  const std::string screen = terminal.screen();
  CHECK(redraws(screen).size() == 1);
  CHECK(screen.back() == '\n');
}

TEST_CASE("A progress bar is silent where there is no terminal", "[callback][progress]") {
  const TemporaryFolder folder;
  std::FILE* file = std::fopen((folder / "log").c_str(), "w");
  REQUIRE(file != nullptr);
  {
    Engine engine({.steps = 3});
    add_level(engine);
    const std::shared_ptr<Callback> bar = mlo::progress_bar(file);
    engine.add(bar);
    engine.run();
    bar->on_warning("not seen");
  }
  std::fclose(file);
  CHECK(read_bytes(folder / "log").empty());
  CHECK_THROWS_AS(mlo::progress_bar(nullptr), ConfigError);
  CHECK_THROWS_WITH(mlo::progress_bar(nullptr), Contains("stderr"));
}
