// Runs read back, averaged over seeds, and written as a page.
#include "mlomae/report/chart.h"
#include "mlomae/report/write_report.h"
#include "mlomae/run/log.h"
#include "mlomae/run/pictures.h"

#include "io/files.h"

#include <ATen/ATen.h>
#include <mlo/error.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <sys/stat.h>

#include "catch.h"

using namespace mlomae;

namespace {

Snapshot snapshot(int64_t step, bool with_probability = true) {
  torch::manual_seed(static_cast<uint64_t>(step));
  Snapshot s;
  s.step = step;
  s.patch = 4;
  s.images = torch::randint(0, 256, {2, 1, 8, 8}, at::kByte);
  s.masked = torch::tensor({{1, 0, 1, 1}, {0, 1, 1, 1}}, at::kByte);
  s.reconstruction = torch::randint(0, 256, {2, 1, 8, 8}, at::kByte);
  if (with_probability) s.probability = torch::rand({2, 4});
  s.position_rate = torch::tensor({0.5, 0.5, 1.0, 1.0});
  return s;
}

void make_run(const std::filesystem::path& path, const std::string& method, int seed,
              double accuracy, const std::string& lr = "0.001", const std::string& name = "a run",
              const std::string& data = "toy") {
  std::filesystem::create_directories(path / "masks");
  write_bytes(path / "config.json", R"({"run": {"seed": )" + std::to_string(seed) +
                                        R"(, "method": ")" + method + R"("}, "pretrain": {"lr": )" +
                                        lr + "}}");
  nlohmann::ordered_json info = {{"name", name},
                                 {"method", method},
                                 {"data", data},
                                 {"seed", seed},
                                 {"steps", 4},
                                 {"reconstruction_steps", 8},
                                 {"seconds", 60.0 + seed},
                                 {"images_per_second", 100.0},
                                 {"peak_mib", 500.0},
                                 {"versions", {{"mlo", "1"}}},
                                 {"threads", 1},
                                 {"processor", "P"}};
  write_bytes(path / "run.json", info.dump());
  write_bytes(path / "log.jsonl",
              "{\"event\":\"start\",\"step\":0}\n"
              "{\"event\":\"step\",\"step\":1,\"losses\":{\"pretrain\":1.0},\"metrics\":{"
              "\"pretrain.reconstruction\":1.25}}\n"
              "{\"event\":\"step\",\"step\":2,\"losses\":{\"pretrain\":null},\"metrics\":{}}\n"
              "{\"event\":\"step\",\"step\":1,\"losses\":{\"pretrain\":0.5},\"metrics\":{"
              "\"pretrain.reconstruction\":0.75}}\n"
              "{\"event\":\"validation\",\"step\":2,\"metrics\":{\"pretrain.knn\":0.5}}\n"
              "{\"event\":\"step\",\"st");
  write_scores(path,
               {{.kind = "linear-probe", .feature = "class", .accuracy = accuracy, .images = 400}});
}

}  // namespace

TEST_CASE("Snapshots of masks are written and read back, and others refused", "[mlomae][report]") {
  const TemporaryFolder folder;
  for (const bool with : {true, false}) {
    write_snapshot(folder / "s.mlo", snapshot(3, with));
    const Snapshot back = read_snapshot(folder / "s.mlo");
    CHECK(back.step == 3);
    CHECK(at::equal(back.images, snapshot(3).images));
    CHECK(back.probability.defined() == with);
  }
  Snapshot wrong = snapshot(1);
  wrong.masked = wrong.masked.narrow(1, 0, 3);
  write_snapshot(folder / "s.mlo", wrong);
  CHECK_THROWS_WITH(read_snapshot(folder / "s.mlo"),
                    Contains("s.mlo") && Contains("belong together"));
  write_bytes(folder / "s.mlo", "nothing");
  CHECK_THROWS_WITH(read_snapshot(folder / "s.mlo"), Contains("s.mlo"));
}

TEST_CASE("Pictures show what is masked", "[mlomae][report]") {
  const Snapshot s = snapshot(1);
  const at::Tensor p = masked_picture(s.images[0], s.masked[0]);
  CHECK(p.sizes() == at::IntArrayRef({3, 8, 8}));
  CHECK(p.narrow(1, 0, 4).narrow(2, 0, 4).eq(150).all().item<bool>());
  CHECK(at::equal(p[1].narrow(0, 0, 4).narrow(1, 4, 4),
                  s.images[0][0].narrow(0, 0, 4).narrow(1, 4, 4)));
  const at::Tensor map = heat_map(torch::tensor({0.0, 1.0, 0.5, 2.0}), 8);
  CHECK(map.select(1, 0).select(1, 0).eq(torch::tensor({68, 1, 84}, at::kByte)).all().item<bool>());
  CHECK(map.select(1, 0)
            .select(1, 7)
            .eq(torch::tensor({253, 231, 37}, at::kByte))
            .all()
            .item<bool>());
  CHECK(at::equal(map.select(1, 7).select(1, 7), map.select(1, 0).select(1, 7)));  // clipped
  CHECK(side_by_side({p, p}, 2).size(2) == 18);
  CHECK(enlarged(p, 3).size(1) == 24);
}

TEST_CASE("A run is read as far as it got, the later line of a step counts", "[mlomae][report]") {
  const TemporaryFolder folder;
  make_run(folder / "a", "mae", 0, 0.5);
  const Run run = read_run(folder / "a");
  CHECK(run.series.at("loss/pretrain").size() == 1);
  CHECK(run.series.at("loss/pretrain").at(2) ==
        0.5);  // by reconstruction step: two a step of the log
  CHECK(run.series.at("validation/pretrain.knn").at(4) == 0.5);
  CHECK(run.scores.size() == 1);
  CHECK_THROWS_WITH(read_run(folder / "none"), Contains("run.json") && Contains("mlomae pretrain"));
  write_bytes(folder / "a/run.json", "{");
  CHECK_THROWS_WITH(read_run(folder / "a"), Contains("run.json") && Contains("damaged"));
}

TEST_CASE("Runs that differ by their seed are one line, with mean and spread", "[mlomae][report]") {
  const TemporaryFolder folder;
  make_run(folder / "a0", "mae", 0, 0.5);
  make_run(folder / "a1", "mae", 1, 0.6);
  make_run(folder / "b0", "mlo-mae", 0, 0.7);
  make_run(folder / "c0", "mae", 0, 0.4, "0.01");
  const std::vector<Run> runs = {read_run(folder / "a0"), read_run(folder / "a1"),
                                 read_run(folder / "b0"), read_run(folder / "c0")};
  const std::vector<Group> groups = grouped(runs);
  REQUIRE(groups.size() == 3);
  CHECK(groups[0].runs == std::vector<std::size_t>{0, 1});
  CHECK(groups[0].scores.at("linear-probe class").mean == Approx(0.55));
  CHECK(groups[0].scores.at("linear-probe class").deviation == Approx(std::sqrt(0.005)));
  CHECK(groups[0].scores.at("linear-probe class").standard_error() == Approx(0.05));
  CHECK(groups[1].scores.at("linear-probe class").deviation == 0.0);
  CHECK(groups[1].scores.at("linear-probe class").standard_error() ==
        Approx(std::sqrt(0.7 * 0.3 / 400)));
  CHECK(groups[0].differing.empty());  // what most have is not mentioned
  REQUIRE(groups[2].differing.size() == 1);
  CHECK(groups[2].differing[0] == std::pair<std::string, std::string>("pretrain.lr", "0.01"));
  const nlohmann::ordered_json json = report_as_json(runs);
  CHECK(json[0]["scores"]["linear-probe class"]["runs"] == 2);
  CHECK(json[0]["scores"]["linear-probe class"]["deviation"] == Approx(std::sqrt(0.005)));
  CHECK_FALSE(json[1]["scores"]["linear-probe class"].contains("deviation"));  // one run has none
  CHECK(json[1]["scores"]["linear-probe class"]["test_error"] ==
        Approx(std::sqrt(0.7 * 0.3 / 400)));
  CHECK(json[0]["seconds"]["mean"] == Approx(60.5));
}

TEST_CASE("Scores of an encoder that a run no longer has are left out, and said",
          "[mlomae][report]") {
  const TemporaryFolder folder;
  make_run(folder / "a", "mae", 0, 0.5);
  nlohmann::ordered_json info = nlohmann::ordered_json::parse(read_bytes(folder / "a/run.json"));
  info["encoder"] = "now";
  write_bytes(folder / "a/run.json", info.dump());
  write_scores(
      folder / "a",
      {{.kind = "knn", .feature = "class", .accuracy = 0.3, .images = 400, .encoder = "before"},
       {.kind = "knn", .feature = "mean", .accuracy = 0.3, .images = 400, .encoder = "before"}});
  write_scores(
      folder / "a",
      {{.kind = "finetune", .feature = "", .accuracy = 0.9, .images = 400, .encoder = "now"}});
  const std::vector<Run> runs = {read_run(folder / "a")};
  REQUIRE(runs[0].scores.size() ==
          2);  // the one of now, and the one of older versions, which do not say
  CHECK(runs[0].scores[0].kind == "finetune");
  CHECK(runs[0].scores[1].kind == "linear-probe");
  REQUIRE(runs[0].notes.size() == 1);
  CHECK_THAT(runs[0].notes[0],
             Contains("the scores of knn are of an encoder that the run no longer has") &&
                 Contains("mlomae evaluate knn " + (folder / "a").string()));
  write_report(runs, folder / "r.html", "t");
  CHECK_THAT(read_bytes(folder / "r.html"),
             Contains("Note: ") && Contains("mlomae evaluate knn") && !Contains("knn class"));
  CHECK(report_as_json(runs)[0]["notes"][0] == runs[0].notes[0]);
  CHECK_FALSE(report_as_json(runs)[0]["scores"].contains("knn class"));
}

TEST_CASE("A run counts once, and one of its seed and settings is no further seed",
          "[mlomae][report]") {
  const TemporaryFolder folder;
  make_run(folder / "a", "mae", 0, 0.5);
  make_run(folder / "again", "mae", 0, 0.9);
  make_run(folder / "b", "mae", 1, 0.6);
  std::filesystem::create_directory_symlink(folder / "a", folder / "link");
  const std::vector<Run> runs = read_runs(
      {folder / "a", folder / "link", folder / "b", folder / "b/../a/", folder / "again"});
  REQUIRE(runs.size() == 3);
  CHECK(runs[0].notes.size() == 2);
  CHECK_THAT(runs[0].notes.at(0), Contains("link is the same run as") && Contains("counted once"));
  const std::vector<Group> groups = grouped(runs);
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].runs == std::vector<std::size_t>{0, 1});
  CHECK(groups[0].scores.at("linear-probe class").runs == 2);
  CHECK(groups[0].scores.at("linear-probe class").mean == Approx(0.55));
  REQUIRE(groups[0].notes.size() == 3);
  CHECK_THAT(groups[0].notes[2],
             Contains("again has the seed and the settings of") && Contains("no further seed"));
  // Imported weights all have the seed 0, and may be of any.
  make_run(folder / "i", "imported", 0, 0.5);
  make_run(folder / "j", "imported", 0, 0.6);
  CHECK(grouped(read_runs({folder / "i", folder / "j"})).at(0).runs.size() == 2);
}

TEST_CASE("A line of a log that is no JSON is counted, but where a killed run has left it",
          "[mlomae][report]") {
  const TemporaryFolder folder;
  const std::string start = "{\"event\":\"start\",\"step\":0}\n",
                    step = R"({"event":"step","step":1,"losses":{"p":1.0}})";
  const auto broken = [&](const std::string& log) {
    write_bytes(folder / "log.jsonl", log);
    const BrokenLines lines = read_log(
        folder / "log.jsonl", [](const LogEntry&) {}, [](const std::string& bad) { FAIL(bad); });
    return std::pair(lines.count, lines.first);
  };
  using Counted = std::pair<int64_t, int64_t>;
  CHECK(broken(start + step + "\n" + step.substr(0, 9)) == Counted(0, 0));
  CHECK(broken(start + step.substr(0, 9) + "\n" + start + step + "\n") == Counted(0, 0));
  CHECK(broken(start + step.substr(0, 9) + "\n" + step + "\n") == Counted(1, 2));
  CHECK(broken("x\n" + start + "y\nz\n" + step + "\n") == Counted(2, 3));
  make_run(folder / "a", "mae", 0, 0.5);
  CHECK(read_run(folder / "a").notes.empty());
  write_bytes(folder / "a/log.jsonl", start + "{\"event\":\"st\n" + step + "\n");
  const std::vector<Run> runs = {read_run(folder / "a")};
  REQUIRE(runs[0].notes.size() == 1);
  CHECK_THAT(runs[0].notes[0],
             Contains("log.jsonl: 1 line is no JSON") && Contains("the first is line 2"));
  write_report(runs, folder / "r.html", "t");
  CHECK_THAT(read_bytes(folder / "r.html"), Contains("Note: ") && Contains("1 line is no JSON"));
  REQUIRE(std::filesystem::remove(folder / "a/log.jsonl"));
  REQUIRE(::mkfifo((folder / "a/log.jsonl").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(read_run(folder / "a"), Contains("log.jsonl is not a file but a pipe"));
}

TEST_CASE("Where no value is the common one, every run's is named", "[mlomae][report]") {
  const TemporaryFolder folder;
  make_run(folder / "a", "mae", 0, 0.5);
  make_run(folder / "b", "mae", 0, 0.5, "0.01");
  const std::vector<Group> groups = grouped({read_run(folder / "a"), read_run(folder / "b")});
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].differing ==
        std::vector<std::pair<std::string, std::string>>{{"pretrain.lr", "0.001"}});
  CHECK(groups[1].differing ==
        std::vector<std::pair<std::string, std::string>>{{"pretrain.lr", "0.01"}});
}

TEST_CASE("Data sets are compared each within itself", "[mlomae][report]") {
  const TemporaryFolder folder;
  make_run(folder / "a", "mae", 0, 0.5, "0.001", "the first");
  make_run(folder / "b", "mlo-mae", 0, 0.6, "0.001", "the second");
  make_run(folder / "c", "mae", 0, 0.9, "0.01", "the third", "other");
  make_run(folder / "d", "mae", 0, 0.8, "0.02", "the fourth", "other");
  std::vector<Run> runs;
  for (const char* name : {"a", "b", "c", "d"}) runs.push_back(read_run(folder / name));
  const std::vector<Group> groups = grouped(runs);
  REQUIRE(groups.size() == 4);
  CHECK(groups[0].differing.empty());
  CHECK(groups[2].differing.size() == 1);
  write_report(runs, folder / "r.html", "t");
  const std::string html = read_bytes(folder / "r.html");
  CHECK_THAT(html, Contains("4 runs on toy, other") && Contains("<td class=\"best\">60.0") &&
                       Contains("<td class=\"best\">90.0") &&
                       !Contains("<td class=\"best\">50.0") && Contains("<h3>toy</h3>") &&
                       Contains("<h3>other</h3>") && Contains("mae, pretrain.lr 0.01 on other"));
  const std::size_t training = html.find("<h2>Training</h2>"),
                    other = html.find("<h3>other</h3>", training);
  CHECK_THAT(html.substr(training, other - training),
             Contains("the first:") && Contains("the second:") && !Contains("the third:") &&
                 !Contains("the fourth:"));
  CHECK_THAT(html.substr(other, html.find("<h2>", other) - other),
             !Contains("the first:") && !Contains("the second:") && Contains("the third:") &&
                 Contains("the fourth:"));
}

TEST_CASE("A run that is going on has no time yet, and does not count as none",
          "[mlomae][report]") {
  const TemporaryFolder folder;
  make_run(folder / "a", "mae", 0, 0.5);
  make_run(folder / "b", "mae", 1, 0.5);
  nlohmann::ordered_json info = nlohmann::ordered_json::parse(read_bytes(folder / "b/run.json"));
  info["seconds"] = 0.0;
  info.erase("images_per_second");
  write_bytes(folder / "b/run.json", info.dump());
  const std::vector<Group> groups = grouped({read_run(folder / "a"), read_run(folder / "b")});
  CHECK(groups.at(0).seconds.runs == 1);
  CHECK(groups.at(0).seconds.mean == Approx(60.0));
  write_report({read_run(folder / "b")}, folder / "r.html", "t");
  CHECK_THAT(read_bytes(folder / "r.html"), Contains("<td>–</td><td>–</td><td>–</td></tr>"));
}

TEST_CASE("Winners are those that none is better than by more than chance", "[mlomae][report]") {
  const auto score = [](double mean, double error) {
    return Spread{.mean = mean, .test_error = error, .runs = 1};
  };
  using Won = std::vector<bool>;
  CHECK(winners({score(0.5, 0.01), score(0.6, 0.01)}) == Won{false, true});
  CHECK(winners({score(0.59, 0.01), score(0.6, 0.01)}) == Won{false, false});  // nobody
  CHECK(winners({score(0.59, 0.01), score(0.6, 0.01), score(0.5, 0.01)}) == Won{true, true, false});
  CHECK(winners({score(0.5, 0.01)}) == Won{false});
  // By the seeds, where there are several: 0.1/√4 each.
  const auto seeds = [](double mean) {
    return Spread{.mean = mean, .deviation = 0.1, .test_error = 0.001, .runs = 4};
  };
  CHECK(winners({seeds(0.50), seeds(0.56)}) == Won{false, false});
  CHECK(winners({seeds(0.50), seeds(0.58)}) == Won{false, true});

  const TemporaryFolder folder;
  make_run(folder / "a", "mae", 0, 0.50);
  make_run(folder / "b", "mlo-mae", 0, 0.52);
  write_report({read_run(folder / "a"), read_run(folder / "b")}, folder / "r.html", "t");
  CHECK_THAT(read_bytes(folder / "r.html"), !Contains("class=\"best\""));
}

TEST_CASE("The page says how far a run has come, and which encoder was not trained",
          "[mlomae][report]") {
  const TemporaryFolder folder;
  const auto page = [&](int64_t taken, int64_t steps) {
    make_run(folder / "a", "mlo-mae", 0, 0.5);
    nlohmann::ordered_json info = nlohmann::ordered_json::parse(read_bytes(folder / "a/run.json"));
    info["steps"] = steps, info["reconstruction_steps"] = 2 * steps, info["steps_taken"] = taken;
    write_bytes(folder / "a/run.json", info.dump());
    write_snapshot(folder / "a/masks/00000008.mlo", snapshot(8));
    write_report({read_run(folder / "a")}, folder / "r.html", "t");
    return read_bytes(folder / "r.html");
  };
  CHECK_THAT(page(4, 4), Contains("at the end of training (step 8)"));
  CHECK_THAT(page(4, 5), Contains("at step 8 of 10") && !Contains("at the end of training"));
  CHECK_THAT(page(1, 1), Contains("encoder as it was initialized (mlo-mae of 2 steps)"));
  // The score of the masker is not called a probability of being masked, and pictures are
  // as large as there is room.
  CHECK_THAT(page(4, 4), Contains("T's score") && !Contains("robability of being masked") &&
                             Contains("--columns:3"));
}

TEST_CASE("A record or a log of the wrong types is named by file, and by key or line",
          "[mlomae][report]") {
  const TemporaryFolder folder;
  make_run(folder / "a", "mae", 0, 0.5);
  const std::string record = read_bytes(folder / "a/run.json");
  write_bytes(folder / "a/run.json", R"({"steps": 1.5})");
  CHECK_THROWS_WITH(read_run(folder / "a"),
                    Contains("run.json: steps = 1.5: expected a whole number"));
  write_bytes(folder / "a/run.json", R"({"name": 7})");
  CHECK_THROWS_WITH(read_run(folder / "a"), Contains("run.json: name = 7: expected text"));
  write_bytes(folder / "a/run.json", record);
  for (const std::string line :
       {R"({"event":"step","step":"1"})", R"({"event":"step","step":-1})",
        R"({"event":"step","step":1e300})", R"({"event":"step","step":1,"losses":[1]})", R"(3)"}) {
    write_bytes(folder / "a/log.jsonl", "{\"event\":\"st\n" + line + "\n");
    CHECK_THROWS_WITH(read_run(folder / "a"),
                      Contains("log.jsonl, line 2") && Contains("remove the line"));
  }
}

TEST_CASE("The page is whole, needs nothing else, and takes no orders from names",
          "[mlomae][report]") {
  const TemporaryFolder folder;
  make_run(folder / "a", "mlo-mae", 0, 0.5, "0.001", "<script>alert(1)</script>");
  make_run(folder / "b", "mae", 0, 0.45);
  for (const int step : {0, 4, 8})
    write_snapshot(folder / ("a/masks/0000000" + std::to_string(step) + ".mlo"), snapshot(step));
  write_report({read_run(folder / "a"), read_run(folder / "b")}, folder / "r.html",
               "A \"title\" & more");
  const std::string html = read_bytes(folder / "r.html");
  CHECK_THAT(html, Contains("A &quot;title&quot; &amp; more") && Contains("50.0 (2.5)") &&
                       Contains("45.0 (2.5)") && Contains("Reconstruction error"));
  CHECK(html.find("<script") == std::string::npos);
  for (const char* outside : {"http://", "https://", "src=\"/", "url(", "@import", "<link"})
    CHECK(html.find(outside) == std::string::npos);
  // Every element that is opened is closed, in order.
  std::vector<std::string> open;
  for (std::size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const std::size_t end = html.find('>', at);
    REQUIRE(end != std::string::npos);
    const std::string tag = html.substr(at + 1, html.find_first_of(" >/", at + 2) - at - 1);
    if (tag[0] == '!' || tag == "meta" || tag == "img" || tag == "br" || html[end - 1] == '/')
      continue;
    if (tag[0] != '/') {
      open.push_back(tag);
      continue;
    }
    const std::string closed = html.substr(at + 2, end - at - 2);
    REQUIRE_FALSE(open.empty());
    REQUIRE(open.back() == closed);
    open.pop_back();
  }
  CHECK(open.empty());
  write_bytes(folder / "a/masks/00000008.mlo", "broken");
  CHECK_THROWS_WITH(write_report({read_run(folder / "a")}, folder / "r.html", "t"),
                    Contains("00000008.mlo"));
  CHECK(read_bytes(folder / "r.html") == html);
  CHECK_THROWS_AS(write_report({}, folder / "r.html", "t"), mlo::ConfigError);
}

TEST_CASE("A chart without points is no chart", "[mlomae][report]") {
  CHECK(chart("t", {{"a", 0, {}}}).empty());
  CHECK_THAT(chart("a<b", {{"x&y", 1, {{0, 1}, {10, 1}}}}),
             Contains("a&lt;b") && Contains("x&amp;y") && Contains("<svg"));
}
