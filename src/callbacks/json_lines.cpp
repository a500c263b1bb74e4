#include "mlo/callbacks/json_lines.h"
#include "io/json.h"
#include "mlo/callback.h"
#include "mlo/engine.h"
#include "text.h"

#include <cerrno>
#include <system_error>

namespace mlo {
namespace {

using Json = nlohmann::ordered_json;  // levels stay lowest first

template <class Numbers>
Json object(const Numbers& numbers) {
  Json result = Json::object();
  for (const auto& [name, value] : numbers) result[name] = value;
  return result;
}

class JsonLines final : public Callback {
 public:
  JsonLines(std::filesystem::path path, int64_t every) : path_(std::move(path)), every_(every) {
    require(every >= 1, "json_lines: every = {}; it must be at least 1 (1: a line each step)",
            every);
    file_.reset(std::fopen(path_.c_str(), "a+e"));
    if (!file_)
      refuse<ConfigError>(
          "{}: json_lines cannot open it: {}; name a file in a folder that exists and may be "
          "written",
          path_.string(), std::generic_category().message(errno));
    // A run that was killed may have left half a line: it must not spoil the first one of this run.
    if (std::fseek(file_.get(), -1, SEEK_END) == 0 && std::fgetc(file_.get()) != '\n') write("\n");
  }

  void on_start(const Engine& engine) override {
    Json line = event("start");
    line["levels"] = engine.level_names();
    line["step"] = engine.steps_taken();
    line["steps"] = engine.options().steps;
    line["seed"] = engine.options().seed;
    put(line);
  }

  void on_step(const StepReport& report) override {
    if (report.step % every_ != 0) return;
    Json line = event("step");
    line["step"] = report.step;
    line["seconds"] = report.seconds;
    line["losses"] = object(report.losses());
    line["metrics"] = object(report.metrics());
    put(line);
  }

  void on_validation(const Engine& /*engine*/, const ValidationReport& report) override {
    Json line = event("validation");
    line["step"] = report.step;
    line["metrics"] = object(report.metrics);
    line["best"] = report.best;
    put(line);
  }

  void on_warning(const std::string& text) override {
    Json line = event("warning");
    line["text"] = text;
    put(line);
  }

  void on_stop(const Engine& engine, const std::string& reason) override {
    Json line = event("stop");
    line["step"] = engine.steps_taken();
    line["reason"] = reason;
    put(line);
  }

 private:
  static Json event(const char* name) { return {{"event", name}}; }

  // Numbers that JSON does not have become null, bytes that are not UTF-8 the replacement
  // character.
  void put(const Json& line) {
    write(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  }

  void write(const std::string& line) {
    if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() ||
        std::fflush(file_.get()) != 0)
      refuse<Error>("{}: json_lines cannot write to it: {}; make room on the disk or log elsewhere",
                    path_.string(), std::generic_category().message(errno));
  }

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::filesystem::path path_;
  int64_t every_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace

std::unique_ptr<Callback> json_lines(std::filesystem::path file, int64_t every) {
  return std::make_unique<JsonLines>(std::move(file), every);
}

}  // namespace mlo
