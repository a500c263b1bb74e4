#include "callbacks/progress_line.h"

#include <cmath>

#include "catch.h"

using mlo::Progress;
using mlo::progress_line;

TEST_CASE("A progress line shows steps, percent, time left and losses", "[progress]") {
  const Progress progress = {.step = 120,
                             .steps = 3000,
                             .seconds_left = 83.2,
                             .losses = {{"pretrain", 0.4131}, {"head", 2.11}, {"mask", 2.3}}};
  CHECK(
      progress_line(progress, 200) ==
      "[=>                            ] 120/3000  4%  eta 1:23  pretrain 0.413 head 2.11 mask 2.3");
  // The bar takes what the words leave over, and goes before the losses do.
  CHECK(progress_line(progress, 79) ==
        "[>" + std::string(18, ' ') +
            "] 120/3000  4%  eta 1:23  pretrain 0.413 head 2.11 mask 2.3");
  CHECK(progress_line(progress, 69) == "120/3000  4%  eta 1:23  pretrain 0.413 head 2.11 mask 2.3");
  CHECK(progress_line(progress, 56) == "120/3000  4%  eta 1:23  pretrain 0.413 head 2.11");
  CHECK(progress_line({.step = 5, .steps = 10, .seconds_left = 0.0}, 32) ==
        "[=====>    ] 5/10  50%  eta 0:00");
  CHECK(progress_line({.step = 10, .steps = 10, .seconds_left = 0.0}, 34) ==
        "[==========] 10/10  100%  eta 0:00");
}

TEST_CASE("A progress line is never wider than the terminal", "[progress]") {
  const Progress progress = {
      .step = 120,
      .steps = 3000,
      .seconds_left = 83.2,
      .losses = {{"encodeur é", 0.413}, {"tête", 2.11}, {"a level with\na long name", 1e-30}}};
  for (int columns = 0; columns < 120; ++columns) {
    const std::string line = progress_line(progress, columns);
    int width = 0;
    for (const char c : line) width += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    INFO(columns << ": " << line);
    CHECK(width <= columns);
    CHECK(line.find('\n') == std::string::npos);
  }
  CHECK(progress_line(progress, 119).find("a level with?a long name 1e-30") != std::string::npos);
  CHECK(progress_line(progress, 8) == "120/3000");
  CHECK(progress_line(progress, -5).empty());
}

TEST_CASE("Times left are readable, unknown ones too", "[progress]") {
  const auto eta = [](double seconds) {
    const std::string line = progress_line({.step = 1, .steps = 2, .seconds_left = seconds}, 79);
    return line.substr(line.find("eta ") + 4);
  };
  CHECK(eta(0.4) == "0:00");
  CHECK(eta(59.6) == "1:00");
  CHECK(eta(3599) == "59:59");
  CHECK(eta(3600 * 27 + 62) == "27:01:02");
  CHECK(eta(NAN) == "-:--");
  CHECK(eta(INFINITY) == "-:--");
  CHECK(eta(-1) == "-:--");
}

TEST_CASE("A rate stands before the losses, once it is known", "[progress]") {
  Progress progress = {.step = 120,
                       .steps = 3000,
                       .seconds_left = 83.2,
                       .rate = 811.4,
                       .unit = "images",
                       .losses = {{"head", 2.11}}};
  CHECK(progress_line(progress, 57) == "120/3000  4%  eta 1:23  811 images/s  head 2.11");
  CHECK(progress_line(progress, 36) == "120/3000  4%  eta 1:23  811 images/s");
  CHECK(progress_line(progress, 35) == "120/3000  4%  eta 1:23  head 2.11");
  progress.rate = 0.274;
  CHECK(progress_line(progress, 57) == "120/3000  4%  eta 1:23  0.27 images/s  head 2.11");
  progress.rate = NAN;
  CHECK(progress_line(progress, 40) == "120/3000  4%  eta 1:23  head 2.11");
}

TEST_CASE("The rate is the recent one", "[progress]") {
  mlo::RecentRate rate;
  CHECK(std::isnan(rate.seconds_per_step()));
  rate.add(100, 5.0);  // a resumed run; how long the steps before took is not known
  CHECK(std::isnan(rate.seconds_per_step()));
  rate.add(110, 25.0);
  CHECK(rate.seconds_per_step() == Approx(2.0));
  double seconds = 25.0;
  for (int64_t step = 120; step <= 400; step += 10) rate.add(step, seconds += 5.0);
  CHECK(rate.seconds_per_step() == Approx(0.5).epsilon(1e-4));
}
