#include "io/files.h"

#include <mlo/error.h>
#include <mlo/io/checkpoint.h>

#include <zlib.h>

#include <bit>
#include <cstring>
#include <limits>

#include "catch.h"

namespace {

using mlo::CheckpointError;
using mlo::State;

State small_state() {
  State state;
  state.set("level/head/steps", int64_t{12345});
  state.set("level/head/lr", 0.1);
  state.set("level/head/rule", std::string("adamw"));
  state.set("level/head/weight", torch::arange(6, torch::kFloat).reshape({2, 3}));
  state.set("random", torch::arange(5, torch::kByte));
  return state;
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() && a.nbytes() == b.nbytes() &&
         (a.nbytes() == 0 ||
          std::memcmp(a.contiguous().data_ptr(), b.contiguous().data_ptr(), a.nbytes()) == 0);
}

bool same(const State& a, const State& b) {
  if (a.values().size() != b.values().size()) return false;
  for (const auto& [key, value] : a.values()) {
    if (!b.has(key)) return false;
    const State::Value& other = b.values().at(key);
    if (value.index() != other.index()) return false;
    if (const auto* real = std::get_if<double>(&value)) {
      if (std::bit_cast<uint64_t>(*real) != std::bit_cast<uint64_t>(std::get<double>(other)))
        return false;
    } else if (const auto* tensor = std::get_if<at::Tensor>(&value)) {
      if (!same_bytes(*tensor, std::get<at::Tensor>(other))) return false;
    } else if (const auto* integer = std::get_if<int64_t>(&value)) {
      if (*integer != std::get<int64_t>(other)) return false;
    } else if (std::get<std::string>(value) != std::get<std::string>(other)) {
      return false;
    }
  }
  return true;
}

State round_trip(const State& state) {
  const TemporaryFolder folder;
  mlo::write_checkpoint(folder / "run.mlo", state);
  return mlo::read_checkpoint(folder / "run.mlo");
}

std::string checkpoint_refusal(const std::filesystem::path& path) {
  return message_of<CheckpointError>([&] { mlo::read_checkpoint(path); });
}

/// The bytes of a checkpoint with this manifest and these tensors, all checksums right: what only a
/// bug or malice makes.
std::string forged(const std::string& manifest, const std::string& tensors, uint32_t version = 1) {
  std::string bytes("mlo\r\n\x1a\n\0", 8);
  const auto append = [&](auto value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  const auto crc = [](const std::string& part) {
    return static_cast<uint32_t>(
        ::crc32_z(0, reinterpret_cast<const Bytef*>(part.data()), part.size()));
  };
  append(version);
  append(crc(manifest));
  append(uint64_t{manifest.size()});
  append(uint64_t{tensors.size()});
  append(uint64_t{crc(bytes)});
  return bytes + manifest + tensors;
}

}  // namespace

TEST_CASE("A state names the key and the types when it is asked for what it does not hold",
          "[state]") {
  State state = small_state();
  CHECK(state.integer("level/head/steps") == 12345);
  CHECK(state.real("level/head/lr") == 0.1);
  CHECK(state.text("level/head/rule") == "adamw");
  CHECK(state.tensor("random").numel() == 5);
  CHECK(state.has("random"));
  CHECK_FALSE(state.has("rando"));
  CHECK_THROWS_WITH(state.integer("level/mask/steps"),
                    Contains("level/mask/steps") && Contains("an integer"));
  CHECK_THROWS_WITH(state.integer("random"),
                    Contains("'random'") && Contains("a tensor, expected an integer"));
  CHECK_THROWS_WITH(state.real("random"), Contains("expected a real"));
  CHECK_THROWS_WITH(state.text("random"), Contains("expected a text"));
  CHECK_THROWS_WITH(state.tensor("level/head/lr"), Contains("a real, expected a tensor"));
  CHECK_THROWS_AS(state.set("random", int64_t{1}), CheckpointError);
  CHECK_THROWS_WITH(state.set("random", int64_t{1}), Contains("'random' already"));
  CHECK(state.tensor("random").numel() == 5);
}

TEST_CASE("Numbers and texts come back to the bit", "[checkpoint]") {
  State state;
  const double reals[] = {0.0,
                          -0.0,
                          0.1,
                          std::numeric_limits<double>::denorm_min(),
                          std::numeric_limits<double>::max(),
                          std::numeric_limits<double>::infinity(),
                          -std::numeric_limits<double>::infinity(),
                          std::bit_cast<double>(uint64_t{0x7FF8000000000001}),
                          std::bit_cast<double>(uint64_t{0xFFF0DEADBEEF1234})};
  for (const double real : reals) state.set("real " + std::to_string(state.values().size()), real);
  for (const int64_t integer :
       {INT64_MIN, int64_t{-1}, int64_t{0}, (int64_t{1} << 53) + 1, INT64_MAX})
    state.set("integer " + std::to_string(integer), integer);
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte += static_cast<char>(byte);
  state.set("text", every_byte);
  state.set("", std::string());
  state.set(every_byte, std::string("a key may hold any bytes, too"));
  CHECK(same(round_trip(state), state));
  CHECK(same(round_trip(State()), State()));

  State other = round_trip(state);  // the comparison itself must be able to fail
  State changed;
  for (const auto& [key, value] : other.values())
    changed.set(key, key == "real 8"
                         ? State::Value(std::bit_cast<double>(uint64_t{0xFFF0DEADBEEF1235}))
                         : value);
  CHECK_FALSE(same(changed, state));
}

TEST_CASE("Tensors of every element type come back to the bit", "[checkpoint]") {
  State state;
  for (int8_t i = 0; i < static_cast<int8_t>(c10::ScalarType::NumOptions); ++i) {
    const auto type = static_cast<c10::ScalarType>(i);
    if (c10::isQIntType(type) || type == c10::ScalarType::Undefined) continue;
    const at::Tensor tensor = at::empty({2, 3}, type);
    for (std::size_t byte = 0; byte < tensor.nbytes(); ++byte)
      static_cast<uint8_t*>(tensor.data_ptr())[byte] = static_cast<uint8_t>(
          type == torch::kBool ? byte % 2 : 0xFF - 37 * byte);  // not-a-numbers among them
    state.set(c10::toString(type), tensor);
  }
  CHECK(state.values().size() >= 12);
  for (const char* name : {"Byte", "Char", "Short", "Int", "Long", "Half", "Float", "Double",
                           "ComplexHalf", "ComplexFloat", "ComplexDouble", "Bool", "BFloat16"})
    CHECK(state.has(name));
  CHECK(same(round_trip(state), state));
}

TEST_CASE("Tensors of every shape and layout come back", "[checkpoint]") {
  State state;
  state.set("no dimensions", torch::tensor(3.5));
  state.set("no elements", torch::empty({0}));
  state.set("no elements, a shape", torch::empty({3, 0, 5}, torch::kHalf));
  state.set("undefined", at::Tensor());
  state.set("transposed", torch::rand({3, 4}).t());
  state.set("strided", torch::arange(20).slice(0, 1, 20, 3));
  state.set("expanded", torch::rand({3, 1}).expand({3, 4}));
  state.set("channels last", torch::rand({2, 3, 4, 5}).contiguous(at::MemoryFormat::ChannelsLast));
  state.set("a parameter", torch::rand({4}, torch::requires_grad()));
  state.set("larger than a pipe", torch::rand({300, 300}));
  const State back = round_trip(state);
  CHECK(same(back, state));
  CHECK(back.tensor("transposed").is_contiguous());
  CHECK_FALSE(back.tensor("a parameter").requires_grad());

  const at::Tensor complex = torch::randn({3}, torch::kComplexDouble);
  State lazy;
  lazy.set("conjugated", complex.conj());
  lazy.set("negated", at::imag(complex.conj()));
  REQUIRE(lazy.tensor("negated").is_neg());
  const State eager = round_trip(lazy);
  CHECK(at::equal(at::view_as_real(eager.tensor("conjugated")),
                  at::view_as_real(complex.conj().resolve_conj())));
  CHECK(at::equal(eager.tensor("negated"), -at::imag(complex)));
}

TEST_CASE("A tensor that has no bytes of its own is refused before anything is written",
          "[checkpoint]") {
  const TemporaryFolder folder;
  const at::Tensor sparse = torch::eye(3).to_sparse();
  const at::Tensor meta = torch::empty({3}, at::TensorOptions().device(at::kMeta));
  for (const at::Tensor& tensor : {sparse, meta}) {
    State state;
    state.set("adjacency", tensor);
    CHECK_THROWS_AS(mlo::write_checkpoint(folder / "run.mlo", state), CheckpointError);
    CHECK_THROWS_WITH(mlo::write_checkpoint(folder / "run.mlo", state),
                      Contains("'adjacency'") && Contains("dense"));
  }
  CHECK(folder.entries() == 0);
}

TEST_CASE("A checkpoint cut off anywhere, or longer than it was, is refused", "[checkpoint]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.mlo";
  mlo::write_checkpoint(path, small_state());
  const std::string whole = read_bytes(path);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_bytes(path, whole.substr(0, size));
    const std::string message = checkpoint_refusal(path);
    INFO(size << " bytes of " << whole.size() << ": " << message);
    REQUIRE_THAT(message, Contains(path.string()));
    REQUIRE_THAT(message, size == 0
                              ? Contains("is empty")
                              : Contains("is damaged: it has " + std::to_string(size) + " bytes"));
  }
  write_bytes(path, whole + '\0');
  CHECK_THAT(checkpoint_refusal(path), Contains("bytes, expected"));
  write_bytes(path, whole);
  CHECK(same(mlo::read_checkpoint(path), small_state()));
}

TEST_CASE("A checkpoint with one bit flipped anywhere is refused", "[checkpoint]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.mlo";
  mlo::write_checkpoint(path, small_state());
  const std::string whole = read_bytes(path);
  for (std::size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    std::string bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    write_bytes(path, bytes);
    const std::string message = checkpoint_refusal(path);
    INFO("bit " << bit << ": " << message);
    REQUIRE_THAT(message, Contains(path.string()));
    REQUIRE_THAT(message, bit < 64 ? Contains("is not a checkpoint") : Contains("CRC-32"));
    REQUIRE_THAT(message, Contains("; "));  // and the cure
  }
  std::string bytes = whole;
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_bytes(path, bytes);
  CHECK_THAT(checkpoint_refusal(path), Contains("tensor 'random'") && Contains("expected"));
}

TEST_CASE("What is not a checkpoint of this version is refused by name", "[checkpoint]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.mlo";
  CHECK_THAT(checkpoint_refusal(folder / "none.mlo"),
             Contains("none.mlo") && Contains("No such file"));
  CHECK_THAT(checkpoint_refusal(folder / "."), Contains("is not a file"));
  CHECK_THAT(checkpoint_refusal("/dev/zero"), Contains("is not a file"));
  write_bytes(path, "PK\x03\x04 a model of another library, and longer than a header of this one");
  CHECK_THAT(checkpoint_refusal(path),
             Contains("is not a checkpoint") && Contains("give a file that a run has saved"));
  write_bytes(path, forged("[]", ""));
  CHECK(mlo::read_checkpoint(path).values().empty());
  write_bytes(path, forged("whatever a later version says", "", 2));
  CHECK_THAT(checkpoint_refusal(path), Contains("format version 2") &&
                                           Contains("reads version 1") &&
                                           Contains("version of mlo that saved"));
}

TEST_CASE("A wrong manifest is refused even if its checksums are right, and allocates nothing",
          "[checkpoint]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.mlo";
  const auto tensor = [](const std::string& shape, const std::string& type = "Float") {
    return R"([{"key":"w","type":"tensor","dtype":")" + type + R"(","crc32":0,"shape":)" + shape +
           "}]";
  };
  const std::pair<std::string, const char*> wrong[] = {
      {"", "manifest is not one"},
      {"{", "manifest is not one"},
      {"7", "manifest is not one"},
      {R"([{"key":"w"}])", "manifest is not one"},
      {R"([{"key":7,"type":"integer","value":1}])", "manifest is not one"},
      {R"([{"key":"w","type":"integer","value":1.5}])", "manifest is not one"},
      {R"([{"key":"w","type":"real","value":"xyz"}])", "has no value of it"},
      {R"([{"key":"w","type":"widget","value":"1"}])", "unknown type 'widget'"},
      {R"([{"key":"w","type":"integer","value":1},{"key":"w","type":"integer","value":1}])",
       "'w' twice"},
      {tensor("[2]"), "not in the file"},
      {tensor("[-1]"), "not in the file"},
      {tensor("[1099511627776]"), "not in the file"},
      {tensor("[4294967296,4294967296,4294967296]"), "not in the file"},
      {tensor("[0,4294967296,4294967296]"), "not in the file"},
      {tensor("\"two\""), "manifest is not one"},
      {tensor("[1]", "Quaternion"), "'Quaternion'"},
      {tensor("[1]", "QInt8"), "'QInt8'"},
      {"[]", "leaves out 4 bytes"},
  };
  for (const auto& [manifest, words] : wrong) {
    write_bytes(path, forged(manifest, "abcd"));
    INFO(manifest);
    CHECK_THAT(checkpoint_refusal(path), Contains(words) && Contains("is damaged"));
  }
  write_bytes(path, forged(std::string(100000, '['), ""));
  CHECK_THAT(checkpoint_refusal(path), Contains("manifest is not one"));
}
