// What is saved, what is refused on the way back, and that a refusal or a full disk costs nothing.
#include <mlo/io/checkpoint.h>
#include <mlo/io/file_sink.h>

#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>
#include "engine/support.h"

#include <sys/stat.h>

using mlo::CheckpointError;

namespace {

/// Three levels with momentum, moments, warm starts, buffers and shuffled data: everything that a
/// state can hold.
struct Three {
  explicit Three(int64_t width = 4) {
    at::manual_seed(1);
    net = torch::nn::Sequential(torch::nn::Linear(3, width), torch::nn::BatchNorm1d(width),
                                torch::nn::Dropout(0.2));
    head = at::randn({width}).requires_grad_();
    weight = at::zeros({3}).requires_grad_();
    data = at::randn({20, 3});
  }
  void add_to(Engine& engine, const char* middle = "middle", bool adam_below = false) {
    engine.add("low",
               Lambda(mlo::trains(net),
                      [this](const Batch& batch) {
                        return (net->forward(batch[0] * weight.sigmoid()).sum(1) - batch[0].sum(1))
                            .square()
                            .mean();
                      }),
               {.optimizer = adam_below ? mlo::adam() : mlo::sgd({.lr = 0.01, .momentum = 0.9}),
                .data = mlo::tensor_source({data}, {.batch_size = 8}),
                .unroll = 2,
                .best_response = mlo::cg({.max_iterations = 3, .damping = 1e3})});
    engine.add(middle,
               Lambda(head,
                      [this](const Batch&) {
                        return (at::matmul(net->forward(data), head) - 1.0).square().mean();
                      }),
               {.optimizer = mlo::adamw({.lr = 0.01}), .best_response = mlo::darts()});
    Lambda up(weight, [this](const Batch&) {
      return at::matmul(net->forward(data), head).square().mean() + weight.square().sum();
    });
    up.judge = [this] {
      return std::map<std::string, double>{{"size", weight.norm().item<double>()}};
    };
    engine.add("up", std::move(up), {.optimizer = mlo::adam({.lr = 0.01})});
  }
  torch::nn::Sequential net{nullptr};
  at::Tensor head, weight, data;
};

EngineOptions few_steps() {
  return {
      .steps = 3, .validate_every = 1, .early_stopping = {.metric = "up.size", .patience = 100}};
}

/// An engine that has run, a state of another moment that fits it, and what it must still be after
/// each refusal.
struct Loaded {
  Loaded() : engine(few_steps()) {
    problem.add_to(engine);
    engine.step();
    other = engine.state();
    engine.run();
    before = engine.state();
  }
  void check_refused_state(const State& state, std::initializer_list<std::string> words) {
    check_refused<CheckpointError>([&] { engine.load_state(state); }, words);
    CHECK(difference(engine.state(), before) == "");
  }
  void check_refused_file(const std::filesystem::path& file,
                          std::initializer_list<std::string> words) {
    check_refused<CheckpointError>([&] { engine.load(file); }, words);
    CHECK(difference(engine.state(), before) == "");
  }
  Three problem;
  Engine engine;
  State other, before;
};

}  // namespace

TEST_CASE("The same run has the same state, bit for bit", "[engine][state]") {
  const auto state = [] {
    Three problem;
    Engine engine(few_steps());
    problem.add_to(engine);
    engine.run();
    return engine.state();
  };
  const State first = state();
  CHECK(difference(first, state()) == "");
  CHECK(first.integer("engine/steps") == 3);
  CHECK(first.integer("level/low/steps") == 6);
  CHECK(first.integer("level/low/batches") == 6);
  CHECK(first.has("level/low/method/warm_start/up/0"));
  CHECK(first.integer("early_stopping/has_best") == 1);

  Loaded one;
  CHECK(difference(one.other, one.before) != "");  // the comparison sees something
  CHECK(difference(one.before, with(one.before, "early_stopping/best", -0.0)) ==
        "early_stopping/best ");
}

TEST_CASE("A state that is loaded is the state, wherever the engine stood", "[engine][state]") {
  Loaded one;
  one.engine.load_state(one.other);
  CHECK(difference(one.engine.state(), one.other) == "");

  Three problem;
  Engine engine(few_steps());
  problem.add_to(engine);
  const State fresh = engine.state();  // before the first step: no moments, no warm starts
  engine.load_state(one.other);
  CHECK(difference(engine.state(), one.other) == "");
  engine.run();
  engine.load_state(fresh);
  CHECK(difference(engine.state(), fresh) == "");
  engine.load_state(one.before);
  CHECK(difference(engine.state(), one.before) == "");
}

TEST_CASE("Going back to the start repeats the run bit for bit", "[engine][state]") {
  Three problem;
  Engine engine(few_steps());
  problem.add_to(engine);
  const State fresh = engine.state();
  engine.run();
  const State first = engine.state();
  engine.load_state(fresh);
  engine.run();
  CHECK(difference(engine.state(), first) == "");
}

TEST_CASE("A damaged checkpoint is refused and the old state stays",
          "[engine][state][checkpoint]") {
  const TemporaryFolder folder;
  const auto file = folder / "run.mlo";
  Loaded one;
  mlo::write_checkpoint(file, one.other);
  const std::string whole = read_bytes(file);

  one.check_refused_file(folder / "none.mlo", {"none.mlo", "No such file"});
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{20}, whole.size() / 2, whole.size() - 1}) {
    write_bytes(file, whole.substr(0, size));
    one.check_refused_file(file, {file.string(), size == 0 ? "is empty" : "is damaged"});
  }
  for (std::size_t i = 0; i < 12; ++i) {
    std::string bytes = whole;
    const std::size_t at = 8 + i * (bytes.size() - 9) / 11;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << i % 8));
    write_bytes(file, bytes);
    one.check_refused_file(file, {file.string(), "CRC-32"});
  }
  write_bytes(file, whole);
  one.engine.load(file);
  CHECK(difference(one.engine.state(), one.other) == "");
}

TEST_CASE("A checkpoint of a newer version is refused and the old state stays",
          "[engine][state][checkpoint]") {
  Loaded one;
  one.check_refused_state(with(one.other, "engine/version", int64_t{99}),
                          {"version 99", "newer mlo"});
}

TEST_CASE("A checkpoint of other levels or shapes is refused and the old state stays",
          "[engine][state][checkpoint]") {
  Loaded one;
  const auto state_of = [](auto&& add, int64_t width = 4) {
    Three problem(width);
    Engine engine;
    add(engine, problem);
    engine.step();
    return engine.state();
  };
  one.check_refused_state(
      state_of([](Engine& engine, Three& problem) { problem.add_to(engine, "head"); }),
      {"levels 'low', 'head', 'up'", "this engine has 'low', 'middle', 'up'",
       "same levels in the same order"});
  one.check_refused_state(state_of([](Engine& engine, Three& problem) {
                            engine.add("low", alone(problem.weight), sgd());
                          }),
                          {"levels 'low', this engine has 'low', 'middle', 'up'"});
  one.check_refused_state(
      state_of([](Engine& engine, Three& problem) { problem.add_to(engine); }, 5),
      {"'buffer/", "Float [5]", "this engine has Float [4]", "models it was saved from"});
  one.check_refused_state(State(), {"engine/version"});

  const auto changed = [&](const std::string& key, State::Value value) {
    return with(one.other, key, std::move(value));
  };
  const std::string parameter = "level/middle/parameter/parameter0";
  one.check_refused_state(changed(parameter, at::zeros({9})),
                          {"'" + parameter + "'", "Float [9]", "Float [4]"});
  one.check_refused_state(changed(parameter, at::zeros({4}, at::kDouble)),
                          {"Double [4]", "Float [4]"});
  one.check_refused_state(changed(parameter, int64_t{4}),
                          {parameter, "an integer, expected a tensor"});
  one.check_refused_state(changed("level/low/parameters", int64_t{3}),
                          {"3 parameters of level 'low'", "this engine has 4"});
  one.check_refused_state(changed("buffers", int64_t{1}),
                          {"1 buffers", "this engine's modules have 3"});
}

TEST_CASE("A state that fails half-way through is taken back", "[engine][state][checkpoint]") {
  Loaded one;
  // The last level's optimizer and method come after all the others have been loaded.
  one.check_refused_state(with(one.other, "level/up/optimizer", at::zeros({7}, at::kByte)),
                          {"could not be applied", "is as it was"});
  one.check_refused_state(with(one.other, "early_stopping/best", std::string("good")),
                          {"early_stopping/best", "is as it was"});
  one.check_refused_state(with(one.other, "level/low/data/rows", int64_t{21}),
                          {"level/low/data/rows", "21", "20", "same data"});

  Three problem;  // another optimizer
  Engine engine;
  problem.add_to(engine, "middle", /*adam_below=*/true);
  engine.step();
  one.check_refused_state(
      engine.state(), {"low.optimizer: saved torch::optim::Adam (", "here torch::optim::SGD ("});
}

namespace {

/// A disk that is full after so many bytes, in front of the real one.
class FullDisk final : public mlo::FileSink {
 public:
  FullDisk(const std::filesystem::path& path, std::size_t room)
      : file_(mlo::atomic_file(path)), room_(room) {}
  void write(const void* bytes, std::size_t count) override {
    file_->write(bytes, std::min(count, room_));
    if (count > room_) throw CheckpointError("No space left on device");
    room_ -= count;
  }
  void commit() override { file_->commit(); }

 private:
  std::unique_ptr<mlo::FileSink> file_;
  std::size_t room_;
};

}  // namespace

TEST_CASE("A disk that fills while saving leaves the previous checkpoint valid",
          "[engine][checkpoint]") {
  const TemporaryFolder folder;
  const auto file = folder / "run.mlo";
  std::size_t room = std::size_t{1} << 30;
  Three problem;
  Engine engine({.steps = 4,
                 .checkpoint = file,
                 .checkpoint_every = 1,
                 .checkpoint_sink = [&](const std::filesystem::path& path) {
                   return std::make_unique<FullDisk>(path, room);
                 }});
  problem.add_to(engine);
  const auto watch = std::make_shared<Watch>();
  State second;
  watch->step = [&](const mlo::StepReport& report) {
    if (report.step == 2) second = report.engine.state();
    if (report.step == 3) room = read_bytes(file).size() / 2;
  };
  engine.add(watch);
  check_refused<CheckpointError>([&] { engine.run(); }, {"No space left"});
  CHECK(engine.steps_taken() == 3);
  CHECK(difference(mlo::read_checkpoint(file), second) == "");
  CHECK(folder.entries() == 1);  // no rests

  check_refused<CheckpointError>([&] { engine.save(file); }, {"No space left"});
  CHECK(difference(mlo::read_checkpoint(file), second) == "");
  room = std::size_t{1} << 30;
  engine.run();  // and when there is room again, the run goes on
  CHECK(mlo::read_checkpoint(file).integer("engine/steps") == 4);
}

TEST_CASE("A save does not replace what is no file", "[engine][checkpoint]") {
  const TemporaryFolder folder;
  const auto pipe = folder / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  Engine engine({.steps = 1, .checkpoint = pipe});
  engine.add("only", alone(leaf()), sgd());
  check_refused<CheckpointError>([&] { engine.run(); },
                                 {pipe.string(), "device, pipe or socket", "name of a file"});
  CHECK(std::filesystem::is_fifo(pipe));
  CHECK(folder.entries() == 1);
}

TEST_CASE("A checkpoint is saved every so many steps and at the end", "[engine][checkpoint]") {
  const TemporaryFolder folder;
  std::vector<int64_t> saved;
  struct Note final : mlo::FileSink {
    void write(const void*, std::size_t) override {}
    void commit() override { done(); }
    std::function<void()> done;
  };
  Engine engine({.steps = 7,
                 .checkpoint = folder / "run.mlo",
                 .checkpoint_every = 3,
                 .checkpoint_sink = [&](const std::filesystem::path& path) {
                   CHECK(path == folder / "run.mlo");
                   auto sink = std::make_unique<Note>();
                   sink->done = [&] { saved.push_back(engine.steps_taken()); };
                   return sink;
                 }});
  engine.add("only", alone(leaf()), sgd());
  engine.run();
  CHECK(saved == std::vector<int64_t>{3, 6, 7});
}

TEST_CASE("An engine that knows a read from later batches still knows it after loading",
          "[engine][state]") {
  const at::Tensor x = leaf(0.2), y = leaf(0.5);
  const auto add = [](Engine& engine, const at::Tensor& own, const at::Tensor& above) {
    engine.add("low",
               Lambda(own,
                      [=](const Batch& batch) {
                        const at::Tensor pull = 0.5 * own.square();
                        return batch[0].item<double>() == 0.0 ? pull
                                                              : pull + 0.5 * (own - above).square();
                      }),
               {.optimizer = mlo::sgd({.lr = 0.1}), .data = [](int64_t i) {
                  return Batch{at::scalar_tensor(i == 0 ? 0.0 : 1.0, at::kDouble)};
                }});
    engine.add("up", lead(above, own), sgd());
  };
  Engine engine({.steps = 6, .validate_every = 3});
  add(engine, x, y);
  engine.step();
  const State early = engine.state();
  engine.run();
  REQUIRE(engine.graph().nodes[0].reads == std::vector<std::size_t>{1});
  const State late = engine.state();

  const at::Tensor u = leaf(0.0), v = leaf(0.0);
  Engine resumed({.steps = 6, .validate_every = 3});
  add(resumed, u, v);
  CHECK(resumed.graph().nodes[0].reads.empty());
  resumed.load_state(late);
  CHECK(resumed.graph().nodes[0].reads == std::vector<std::size_t>{1});
  resumed.step();
  engine.step();
  CHECK(difference(resumed.state(), engine.state()) == "");
  resumed.load_state(early);
  CHECK(resumed.graph().nodes[0].reads.empty());
  CHECK(difference(resumed.state(), early) == "");
}
