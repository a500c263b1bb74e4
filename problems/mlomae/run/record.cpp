#include "mlomae/run/record.h"

#include "mlomae/config/json_text.h"
#include "mlomae/message.h"
#include "mlomae/run/run_directory.h"

#include <mlo/version.h>
#include <torch/version.h>

#include <fstream>
#include <initializer_list>

#include <sys/resource.h>

namespace mlomae {

using Json = nlohmann::ordered_json;

Json read_object(const std::filesystem::path& file) {
  Json json = read_json(
      file, "it is damaged, or no file of a run: give a directory that `mlomae pretrain` has made");
  require<mlo::Error>(json.is_object(), "{}: not a JSON object; it is damaged, or no file of a run",
                      file.string());
  return json;
}

Json read_record(const std::filesystem::path& run) {
  const std::filesystem::path file = RunDirectory{run}.record();
  Json json = read_object(file);
  const auto check = [&](std::initializer_list<const char*> keys, bool (*right)(const Json&),
                         const char* expected) {
    for (const char* key : keys)
      if (json.contains(key) && !right(json[key]))
        refuse<mlo::Error>("{}: {} = {}: expected {}; the file is damaged: restore it",
                           file.string(), key, abridged(json_text(json[key])), expected);
  };
  check(
      {"name", "method", "preset", "data", "processor", "command", "device", "started", "finished",
       "reason", "encoder"},
      [](const Json& value) { return value.is_string(); }, "text");
  check(
      {"seconds", "images_per_second", "peak_mib"},
      [](const Json& value) { return value.is_number() || value.is_null(); }, "a number");
  check(
      {"steps", "reconstruction_steps", "steps_taken", "threads"},
      [](const Json& value) { return value.is_number_integer() && value.get<int64_t>() >= 0; },
      "a whole number");
  check(
      {"versions"}, [](const Json& value) { return value.is_object(); }, "an object");
  check(
      {"resumed"}, [](const Json& value) { return value.is_array(); }, "a list");
  for (const char* key : {"seconds", "images_per_second", "peak_mib"})
    if (json.contains(key) && json[key].is_null()) json.erase(key);
  return json;
}

Json versions() {
  return {{"mlo", mlo::version()}, {"libtorch", TORCH_VERSION}, {"compiler", __VERSION__}};
}

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return {};
}

std::string command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string line, word;
  while (std::getline(file, word, '\0'))
    line += (line.empty() ? std::filesystem::path(word).filename().string() : " " + word);
  return line;
}

double peak_mib() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

}  // namespace mlomae
