#include "mlomae/config/fields.h"
#include "mlomae/config/json.h"
#include "mlomae/config/json_text.h"
#include "mlomae/config/presets.h"

#include "io/files.h"

#include <mlo/error.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <set>

#include <sys/stat.h>

#include "catch.h"

using Catch::Matchers::Contains;
using mlo::ConfigError;
using namespace mlomae;
using Json = nlohmann::ordered_json;

TEST_CASE("Every setting has a key of its own, a sentence, and a choice among its choices",
          "[config]") {
  Settings settings;
  std::set<std::string> keys;
  for (const Field& field : fields(settings)) {
    INFO(field.key);
    CHECK(keys.insert(field.key).second);
    CHECK(field.about.size() > 8);
    if (const auto* text = std::get_if<std::string*>(&field.value); text && !field.choices.empty())
      CHECK(std::count(field.choices.begin(), field.choices.end(), **text) == 1);
  }
}

TEST_CASE("Settings survive JSON, plain and explained", "[config]") {
  for (const Preset& p : presets()) {
    INFO(p.name);
    const Settings settings = preset(p.name);
    CHECK_NOTHROW(settings.validate());
    for (const bool explained : {false, true}) {
      Settings back;
      apply_json(back, to_json(settings, explained), "");
      CHECK(to_json(back) == to_json(settings));
    }
  }
  // Every field is written and read: change each in turn.
  Settings settings;
  for (const Field& field : fields(settings)) {
    INFO(field.key);
    Settings changed;
    const std::size_t dot = field.key.find('.');
    const Json was = to_json(changed)[field.key.substr(0, dot)][field.key.substr(dot + 1)];
    const Json value = was.is_boolean() ? Json(!was.get<bool>())
                       : was.is_string()
                           ? Json(field.choices.empty()         ? "x"
                                  : field.choices.back() == was ? field.choices.front()
                                                                : field.choices.back())
                           : Json(was.get<double>() + 1);
    apply_json(changed, {{field.key.substr(0, dot), {{field.key.substr(dot + 1), value}}}}, "");
    CHECK(to_json(changed)[field.key.substr(0, dot)][field.key.substr(dot + 1)] == value);
    CHECK(to_json(changed) != to_json(Settings()));
  }
}

TEST_CASE("Presets follow the paper, or the authors' code", "[config]") {
  const Settings cifar = preset("cifar10"), code = preset("reference");
  CHECK(cifar.model.size == "base");
  CHECK(cifar.model.patch == 2);
  CHECK(cifar.pretrain.unroll == 2);
  CHECK(cifar.pretrain.lr == 1e-4);
  CHECK(cifar.pretrain.beta2 == 0.95);
  CHECK(cifar.masker.input == "held");
  CHECK(cifar.masker.selects == "rank");
  CHECK(code.masker.input == "coupled");
  CHECK(code.pretrain.best_response == "betty");
  CHECK(code.data.pretrain_on == "all");
  CHECK(code.model.learned_positions);
  CHECK(preset("imagenet").pretrain.batch == 256);
  CHECK_THROWS_WITH(preset("cifar"), Contains("'cifar'") && Contains("cifar100"));
}

TEST_CASE("A wrong setting is named, with what would do", "[config]") {
  Settings s;
  CHECK_THROWS_WITH(apply_json(s, {{"model", {{"pacth", 2}}}}, "my.json"),
                    Contains("my.json") && Contains("'model.pacth'") && Contains("'model.patch'"));
  CHECK_THROWS_WITH(apply_assignment(s, "mask.patch=2"), Contains("'model.patch'"));
  CHECK_THROWS_WITH(apply_assignment(s, "mask.ratio=0.5"),
                    Contains("--set mask.ratio is masker.ratio now"));
  CHECK_THROWS_WITH(apply_assignment(s, "masker.weights=normalized"),
                    Contains("--set masker.weights is masker.weighs now"));
  CHECK_THROWS_WITH(apply_assignment(s, "mask.selection=rank"),
                    Contains("--set mask.selection is masker.selects now"));
  CHECK_THROWS_WITH(apply_json(s, {{"mask", {{"hidden", 8}}}}, "run/config.json"),
                    Contains("run/config.json: mask.hidden is masker.hidden now"));
  CHECK_THROWS_WITH(apply_json(s, {{"model", {{"patch", "two"}}}}, ""),
                    Contains("model.patch = \"two\"") && Contains("whole number"));
  CHECK_THROWS_WITH(apply_json(s, {{"model", {{"patch", 2.5}}}}, ""), Contains("whole number"));
  CHECK_THROWS_WITH(apply_json(s, {{"masker", {{"selects", "best"}}}}, ""),
                    Contains("it must be one of 'rank', 'sampled', 'own', 'uniform'"));
  CHECK_THROWS_WITH(apply_json(s, {{"augmentation", {{"flip", 1}}}}, ""),
                    Contains("true or false"));
  CHECK_THROWS_WITH(apply_json(s, {{"model", 3}}, ""), Contains("expected an object"));
  CHECK_THROWS_WITH(apply_json(s, Json::array(), "f"), Contains("expected an object"));
  CHECK_THROWS_WITH(apply_assignment(s, "model.patch"), Contains("section.name=value"));
  CHECK_THROWS_AS(apply_file(s, "no/such/file.json"), ConfigError);

  // Nothing of a file with a mistake in it is taken over.
  CHECK_THROWS(apply_json(s, {{"model", {{"patch", 8}, {"no_such", 1}}}}, ""));
  CHECK(s.model.patch == 4);

  apply_assignment(s, "model.patch=8");
  apply_assignment(s, "pretrain.lr=3e-4");
  apply_assignment(s, "data.path=1234");  // a text that looks like a number
  CHECK(s.model.patch == 8);
  CHECK(s.pretrain.lr == 3e-4);
  CHECK(s.data.path == "1234");
}

TEST_CASE("Settings that cannot work are refused by name", "[config]") {
  const auto refused = [](auto change) {
    Settings s = preset("micro");
    s.validate();
    change(s);
    try {
      s.validate();
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  CHECK_THAT(refused([](Settings& s) { s.masker.ratio = 1.0; }),
             Contains("masker.ratio = 1;") && Contains("nothing visible"));
  CHECK_THAT(refused([](Settings& s) { s.masker.ratio = 0.0; }), Contains("nothing masked"));
  CHECK_THAT(refused([](Settings& s) { s.pretrain.lr = 0.0; }), Contains("pretrain.lr"));
  CHECK_THAT(refused([](Settings& s) { s.head.batch = 0; }), Contains("head.batch = 0"));
  CHECK_THAT(refused([](Settings& s) { s.data.held_out = 1.0; }), Contains("data.held_out"));
  CHECK_THAT(refused([](Settings& s) { s.data.held_out = 0.0; }), Contains("data.held_out"));
  CHECK(refused([](Settings& s) { s.masker.selects = "uniform"; }) == "accepted");
  CHECK_THAT(refused([](Settings& s) { s.masker.weighs = "alike"; }),
             Contains("masker.weighs = 'alike'") && Contains("masker.selects = own"));
  CHECK_THAT(refused([](Settings& s) { s.run.method = "oracle"; }),
             Contains("data.maps is empty") && Contains("--set data.maps=FOLDER"));
  CHECK_THAT(refused([](Settings& s) { s.model.head_norm = "batch", s.head.batch = 1; }),
             Contains("head.batch = 1 with model.head_norm = batch"));
  CHECK_THAT(refused([](Settings& s) {
               s.masker.input = "coupled", s.masker.network = "attention";
               s.pretrain.best_response = "reverse-over-forward";
             }),
             Contains("masker.network = 'attention'") && Contains("one-step or darts"));
  CHECK_THAT(refused([](Settings& s) { s.head.best_response = "reverse-over-forward"; }),
             Contains("head.best_response"));
  CHECK_THAT(refused([](Settings& s) {
               s.run.method = "oracle", s.data.maps = "maps", s.masker.selects = "own";
             }),
             Contains("masker.selects = 'own'"));
  CHECK_THAT(refused([](Settings& s) { s.run.epochs = 3; }), Contains("run.epochs"));
  CHECK_THAT(refused([](Settings& s) { s.run.reconstruction_steps = 0; }),
             Contains("run.reconstruction_steps"));
  CHECK_THAT(refused([](Settings& s) { s.model.size = "huge"; }), Contains("model.size = 'huge'"));
}

TEST_CASE("A name that is there twice, and more in an explained value, are refused by name",
          "[config]") {
  CHECK_THROWS_WITH(parse_json(R"({"pretrain": {"lr": 0.1, "lr": 0.2}})", "my.json"),
                    Contains("my.json: 'lr' is there twice"));
  CHECK_THROWS_WITH(parse_json(R"({"a": {"b": 1}, "a": {}})", "my.json"),
                    Contains("'a' is there twice"));
  CHECK(parse_json(R"([{"a": {"a": 1}}, {"a": [{"a": 2}, {"a": 3}], "b": {"a": 4}}])", "my.json")
            .size() == 2);
  Settings s;
  CHECK_THROWS_WITH(apply_json(s, {{"model", {{"patch", {{"value", 2}, {"bad", 1}}}}}}, "my.json"),
                    Contains("my.json: model.patch holds 'bad'") && Contains("mlomae config"));
  apply_json(s, {{"model", {{"patch", {{"value", 2}, {"about", "side"}}}}}}, "");
  CHECK(s.model.patch == 2);
}

TEST_CASE("What is quoted of an input does not flood the message", "[config]") {
  const TemporaryFolder folder;
  Settings s;
  const std::string digits(900'000, '1'), letters(900'000, 'x'),
      key = R"({"model": {")" + letters + R"(": 1}})";
  const auto check = [](const std::string& message, const std::string& words) {
    CHECK(message.size() < 600);
    CHECK_THAT(message.substr(0, 600), Contains(words) && !Contains("\xEF\xBF\xBD"));
  };
  const auto of_file = [&](const std::string& text) {
    write_bytes(folder / "c.json", text);
    return message_of<ConfigError>([&] { apply_file(s, folder / "c.json"); });
  };
  check(of_file(R"({"pretrain": {"lr": )" + digits + "}}"), "c.json");
  check(of_file(R"({"pretrain": {"lr": )" + digits + "x}}"), "c.json: not JSON");
  check(of_file(R"({"pretrain": {"optimizer": ")" + letters + "\"}}"), "pretrain.optimizer = 'xxx");
  check(of_file(R"({"pretrain": {"lr": ")" + letters + "\"}}"), "pretrain.lr = \"xxx");
  check(of_file(key), "there is no setting 'model.xxx");
  check(of_file(R"({")" + letters + R"(": 1})"), "'xxx");
  check(of_file("[\"" + letters + "\"]"), "expected an object");
  check(message_of<ConfigError>([&] { apply_assignment(s, letters); }),
        "expected section.name=value");
  check(message_of<ConfigError>([&] { apply_assignment(s, letters + "=1"); }),
        "there is no setting");
  check(message_of<ConfigError>([&] { apply_assignment(s, "model.patch=" + digits); }),
        "model.patch");
  check(message_of<ConfigError>([&] { preset(letters); }), "there is no preset");
  s.run.method = letters;
  check(message_of<ConfigError>([&] { s.validate(); }), "run.method = 'xxx");
  s = preset("micro");
  s.data.path = letters;
  check(message_of<ConfigError>([&] { s.validate(); }), "data.path = '");
  // Whole letters are left.
  CHECK(abridged("äöü", 4) == "ä … ü");
  CHECK(abridged("short") == "short");
}

TEST_CASE("Only regular files are read", "[config]") {
  const TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe.json").c_str(), 0600) == 0);
  Settings s;
  CHECK_THAT(message_of<ConfigError>([&] { apply_file(s, folder / "pipe.json"); }),
             Contains("pipe.json is not a file but a pipe"));
  CHECK_THAT(message_of<ConfigError>([&] { apply_file(s, "/dev/zero"); }),
             Contains("is not a file but a device"));
}
