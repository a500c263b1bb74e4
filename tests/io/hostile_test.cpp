// Files made to do harm: what is no regular file, what nests, repeats or announces without end.
#include "files.h"

#include "io/json.h"
#include "io/regular_file.h"

#include <mlo/data/idx.h>
#include <mlo/data/images.h>
#include <mlo/error.h>
#include <mlo/io/checkpoint.h>
#include <mlo/io/safetensors.h>

#include <torch/types.h>

#include <chrono>

#include <sys/stat.h>

#include "catch.h"

namespace {

std::string safetensors(const std::string& header, const std::string& data = "") {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i));
  return bytes + header + data;
}

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

double seconds(const std::function<void()>& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("Every reader refuses what is no regular file, by name and at once", "[hostile]") {
  const TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  std::filesystem::create_symlink("/dev/zero", folder / "device");
  std::filesystem::create_symlink("loop", folder / "loop");
  std::filesystem::create_directory(folder / "folder");
  const std::pair<const char*, const char*> what[] = {{"pipe", "is not a file but a pipe"},
                                                      {"device", "is not a file but a device"},
                                                      {"folder", "is not a file but a folder"},
                                                      {"loop", "Too many levels of symbolic links"},
                                                      {"none", "No such file"}};
  for (const auto& [name, words] : what) {
    const auto file = folder / name;
    INFO(name);
    const auto refused = [&, words = std::string(words)](const auto& read) {
      const std::string message = message_of<mlo::Error>(read);
      CHECK_THAT(message, Contains(file.string()) && Contains(words) && Contains("; "));
    };
    refused([&] { mlo::read_file(file, 100); });
    refused([&] { mlo::read_image(file); });
    refused([&] { mlo::read_idx(file); });
    refused([&] { mlo::read_checkpoint(file); });
    refused([&] { mlo::read_safetensors(file); });
  }
  for (const auto& [name, words] : what) {
    const TemporaryFolder set;
    const auto file = set / "data_batch_1.bin";
    std::filesystem::create_symlink(folder / name, file);
    INFO(name);
    CHECK_THAT(message_of<mlo::Error>([&] { mlo::cifar10_images(file.parent_path(), true); }),
               Contains(file.string()) && Contains(words));
  }
}

TEST_CASE("A file is read whole, or refused for its size", "[hostile]") {
  const TemporaryFolder folder;
  const std::string bytes("a\0b\n", 4);
  write_bytes(folder / "a", bytes);
  CHECK(mlo::read_file(folder / "a", 4) == bytes);
  CHECK_THAT(message_of<mlo::Error>([&] { mlo::read_file(folder / "a", 3); }),
             Contains((folder / "a").string()) && Contains("has 4 bytes, expected at most 3"));
}

TEST_CASE("JSON that nests without end is refused before it is parsed", "[hostile]") {
  CHECK_NOTHROW(mlo::parsed_json(repeated("[", 64) + repeated("]", 64)));
  CHECK_NOTHROW(mlo::parsed_json("\"" + repeated("[", 100) + R"(\")" + repeated("{", 100) + "\""));
  CHECK_NOTHROW(mlo::parsed_json("[" + repeated("[],{},", 1000) + "0]"));
  CHECK_THROWS_WITH(mlo::parsed_json(repeated(R"({"\\":[)", 33)),
                    Contains("nests arrays and objects 66 deep, expected at most 64"));
  CHECK_THROWS_WITH(mlo::parsed_json(R"({"a":[{"b":1,"b":2}]})"), Contains("names 'b' twice"));

  const TemporaryFolder folder;
  const auto refusal = [&](const std::string& header, const std::string& data = "") {
    write_bytes(folder / "file", safetensors(header, data));
    return message_of<mlo::Error>([&] { mlo::read_safetensors(folder / "file"); });
  };
  const std::string deep = repeated("[", 100000) + repeated("]", 100000);
  CHECK_THAT(refusal(R"({"a":{"dtype":"U8","shape":)" + deep + R"(,"data_offsets":[0,1]}})", "x"),
             Contains("100002 deep"));
  CHECK_THAT(refusal(repeated(R"({"a":)", 100000)), Contains("100000 deep"));
}

TEST_CASE("The header of safetensors is read in linear time", "[hostile]") {
  const TemporaryFolder folder;
  std::string header = "{";
  for (int i = 0; i < 100000; ++i)
    header += (i > 0 ? ",\"" : "\"") + std::to_string(i) +
              R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  write_bytes(folder / "file", safetensors(header + "}"));
  mlo::Safetensors all;
  CHECK(seconds([&] { all = mlo::read_safetensors(folder / "file"); }) <
        10.0);  // it was more than 60
  CHECK(all.tensors.size() == 100000);
  CHECK(seconds([&] { mlo::write_safetensors(folder / "again", all); }) < 10.0);
  CHECK(message_of<mlo::Error>([&] { all.at("x"); }).size() < 2000);

  // Each of many names claims all of the data: nothing may be allocated before that is seen.
  const std::string all_of_it = R"(":{"dtype":"U8","shape":[100000],"data_offsets":[0,100000]})";
  header = "{";
  for (int i = 0; i < 1000; ++i) header += (i > 0 ? ",\"" : "\"") + std::to_string(i) + all_of_it;
  write_bytes(folder / "file", safetensors(header + "}", std::string(100000, 'x')));
  CHECK_THAT(message_of<mlo::Error>([&] { mlo::read_safetensors(folder / "file"); }),
             Contains("follow each other"));
  // A size of 0 hides an overflow.
  write_bytes(
      folder / "file",
      safetensors(
          R"({"a":{"dtype":"F64","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}})"));
  CHECK_THAT(message_of<mlo::Error>([&] { mlo::read_safetensors(folder / "file"); }),
             Contains("no valid shape"));
  // What is shown of a long text is short.
  write_bytes(folder / "file", safetensors("{\"" + std::string(100000, 'n') + "\":1}"));
  CHECK(message_of<mlo::Error>([&] { mlo::read_safetensors(folder / "file"); }).size() < 1000);
}

TEST_CASE("safetensors hold names and texts in UTF-8 only", "[hostile]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(
      mlo::write_safetensors(folder / "a", {.tensors = {{"\xFF", torch::zeros({1})}}}),
      Contains("not UTF-8"));
  CHECK_THROWS_AS(mlo::write_safetensors(folder / "a", {.metadata = {{"key", "\xFF"}}}),
                  mlo::Error);
  CHECK(folder.entries() == 0);
}
