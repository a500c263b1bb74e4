// safetensors and TensorBoard files, written, read back here and by the packages that others use,
// and damaged.
#include "files.h"

#include <mlo/data/images.h>
#include <mlo/error.h>
#include <mlo/io/event_file.h>
#include <mlo/io/safetensors.h>

#include <ATen/ATen.h>
#include <torch/types.h>

#include <cstdlib>
#include <random>

#include <sys/wait.h>

#include "catch.h"

namespace {

// False: the package is not here, and the test is left out with a word.
bool read_by_python(const std::string& kind, const std::filesystem::path& folder) {
  if (!std::filesystem::exists(MLO_TEST_PYTHON)) {
    WARN("no Python with " << kind << " here (scripts/setup.sh --tests): not read back by it");
    return false;
  }
  const std::string command =
      std::string(MLO_TEST_PYTHON) + " " + MLO_TEST_SCRIPT + " " + kind + " " + folder.string();
  const int status = std::system(command.c_str());
  if (WEXITSTATUS(status) == 77) {
    WARN("Python has no " << kind << " here: not read back by it");
    return false;
  }
  CHECK(status == 0);
  return status == 0;
}

mlo::Safetensors content() {
  return {.tensors = {{"matrix", torch::arange(6).view({2, 3}).to(at::kFloat) / 4},
                      {"whole", torch::tensor({int64_t{-5}, int64_t{1} << 40})},
                      {"flags", torch::tensor({true, false, true})},
                      {"empty", torch::empty({0, 4})},
                      {"scalar", torch::tensor(1e-300, at::kDouble)}},
          .metadata = {{"format", "pt"}, {"who", "mlo"}}};
}

}  // namespace

TEST_CASE("safetensors are read back to the bit, here and in Python", "[safetensors]") {
  const TemporaryFolder folder;
  mlo::write_safetensors(folder / "ours.safetensors", content());
  const mlo::Safetensors back = mlo::read_safetensors(folder / "ours.safetensors");
  CHECK(back.metadata == content().metadata);
  REQUIRE(back.tensors.size() == 5);
  for (const auto& [name, tensor] : content().tensors) {
    INFO(name);
    CHECK(back.at(name).scalar_type() == tensor.scalar_type());
    CHECK(at::equal(back.at(name), tensor));
  }
  if (!read_by_python("safetensors", (folder / "x").parent_path())) return;
  const mlo::Safetensors theirs = mlo::read_safetensors(folder / "theirs.safetensors");
  CHECK(at::equal(theirs.at("x"), torch::arange(4).to(at::kDouble) * 0.5));
  CHECK(at::equal(theirs.at("y"), torch::tensor({{1, 2, 3}}, at::kInt)));
  CHECK(theirs.metadata.at("by") == "python");
}

TEST_CASE("Every element type that the format has survives", "[safetensors]") {
  const TemporaryFolder folder;
  mlo::Safetensors all;
  for (const auto type : {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong,
                          at::kHalf, at::kBFloat16, at::kFloat, at::kDouble})
    all.tensors.emplace_back(c10::toString(type), torch::tensor({0, 1, 1}).to(type));
  mlo::write_safetensors(folder / "a", all);
  for (const auto& [name, tensor] : all.tensors)
    CHECK(at::equal(mlo::read_safetensors(folder / "a").at(name), tensor));
  // A part of a tensor is stored as itself.
  const at::Tensor whole = torch::rand({4, 6});
  mlo::write_safetensors(folder / "b", {.tensors = {{"part", whole.t().narrow(0, 1, 2)}}});
  CHECK(at::equal(mlo::read_safetensors(folder / "b").at("part"), whole.t().narrow(0, 1, 2)));
  CHECK_THROWS_AS(mlo::write_safetensors(
                      folder / "c", {.tensors = {{"x", torch::zeros({2}, at::kComplexFloat)}}}),
                  mlo::Error);
  CHECK_THROWS_WITH(mlo::write_safetensors(folder / "c", {.tensors = {{"x", torch::zeros({2})},
                                                                      {"x", torch::zeros({2})}}}),
                    Contains("twice"));
  CHECK_FALSE(std::filesystem::exists(folder / "c"));
  CHECK_THROWS_WITH(mlo::read_safetensors(folder / "b").at("other"),
                    Contains("'other'") && Contains("part"));
}

TEST_CASE("Damaged safetensors are refused by name, and end no process", "[safetensors]") {
  const TemporaryFolder folder;
  const auto file = folder / "a";
  const auto refusal = [&](const std::string& bytes) {
    write_bytes(file, bytes);
    const std::string message = message_of<mlo::Error>([&] { mlo::read_safetensors(file); });
    if (!message.empty()) CHECK_THAT(message, Contains(file.string()));
    return message;
  };
  const auto with = [](const std::string& header, const std::string& data) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i));
    return bytes + header + data;
  };
  CHECK(refusal(with(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "xy")).empty());
  CHECK_THAT(refusal("short"), Contains("5 bytes"));
  CHECK_THAT(refusal(std::string(8, '\xFF')), Contains("announces a header"));
  CHECK_THAT(refusal(with("[]", "")), Contains("no JSON object"));
  CHECK_THAT(refusal(with("{", "")), Contains("no JSON"));
  CHECK_THAT(refusal(with(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,3]}})", "xyz")),
             Contains("need 2"));
  CHECK_THAT(refusal(with(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "x")),
             Contains("data_offsets"));
  CHECK_THAT(refusal(with(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "xy")),
             Contains("fill 1"));
  CHECK_THAT(refusal(with(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "xy")),
             Contains("follow each other"));
  CHECK_THAT(
      refusal(with(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
          "x")),
      Contains("follow each other"));
  CHECK_THAT(
      refusal(with(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
          "x")),
      Contains("twice"));
  CHECK_THAT(refusal(with(R"({"a":{"dtype":"C64","shape":[1],"data_offsets":[0,1]}})", "x")),
             Contains("C64"));
  CHECK_THAT(
      refusal(
          with(R"({"a":{"dtype":"U8","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", "")),
      Contains("shape"));

  mlo::write_safetensors(file, content());
  const std::string whole = read_bytes(file);
  std::mt19937_64 random(3);
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = whole;
    damaged[random() % 400] = static_cast<char>(random());
    if (random() % 3 == 0) damaged.resize(random() % damaged.size());
    refused += refusal(damaged).empty() ? 0 : 1;
  }
  CHECK(refused > 1000);
}

TEST_CASE(
    "TensorBoard reads what was written, and a resumed run takes the place of what it repeats",
    "[tensorboard]") {
  const TemporaryFolder folder;
  const auto events = folder / "events";
  {
    mlo::EventWriter writer(events, 1);
    writer.scalars(1, {{"a", 0.5}, {"loss/level", 2.0}});
    writer.scalars(2, {{"a", 1.5}});
    writer.scalars(3, {{"a", 3.0}});
  }
  {
    mlo::EventWriter writer(events, 3);
    writer.scalars(3, {{"a", 30.0}});
    writer.scalars(4, {{"a", -2.0}});
    writer.image(4, "picture", mlo::encode_png(torch::zeros({3, 2, 3}, at::kByte)), 3, 2);
  }
  read_by_python("tensorboard", events);

  write_bytes(folder / "file", "");
  CHECK_THROWS_WITH(mlo::EventWriter(folder / "file"), Contains((folder / "file").string()));
}
