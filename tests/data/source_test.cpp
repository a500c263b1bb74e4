#include <mlo/data/source.h>
#include <mlo/error.h>

#include <ATen/CPUGeneratorImpl.h>

#include <numeric>
#include <set>

#include "catch.h"

namespace {

using mlo::Batch;
using mlo::BatchSource;
using mlo::ConfigError;
using mlo::State;
using mlo::tensor_source;
using mlo::TensorSourceOptions;

at::Tensor rows(int64_t n) { return torch::arange(n, torch::kLong); }

std::vector<int64_t> values(const at::Tensor& tensor) {
  return {tensor.data_ptr<int64_t>(), tensor.data_ptr<int64_t>() + tensor.numel()};
}

/// The next batches' first tensors, one after the other.
std::vector<int64_t> take(BatchSource& source, int batches) {
  std::vector<int64_t> all;
  for (int i = 0; i < batches; ++i) {
    const auto batch = values(source.next()[0].contiguous());
    all.insert(all.end(), batch.begin(), batch.end());
  }
  return all;
}

std::vector<int64_t> sorted(std::vector<int64_t> all) {
  std::sort(all.begin(), all.end());
  return all;
}

std::vector<int64_t> upto(int64_t n) { return values(rows(n)); }

State saved(const BatchSource& source) {
  State state;
  source.save(state, "level/head/data/");
  return state;
}

/// The state with one value replaced.
State with(const State& state, const std::string& key, State::Value value) {
  State changed;
  for (const auto& [name, old] : state.values()) changed.set(name, name == key ? value : old);
  return changed;
}

std::string load_refusal(BatchSource& source, const State& state) {
  try {
    source.load(state, "level/head/data/");
  } catch (const mlo::CheckpointError& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("An epoch hands out each row once, the tensors side by side", "[source]") {
  const auto source = tensor_source({rows(12), rows(12).to(torch::kDouble).unsqueeze(1) * 10},
                                    {.batch_size = 4, .seed = 7});
  std::vector<int64_t> first_epoch;
  for (int epoch = 0; epoch < 3; ++epoch) {
    CHECK(source->epoch() == epoch);
    std::vector<int64_t> seen;
    for (int i = 0; i < 3; ++i) {
      const Batch batch = source->next();
      REQUIRE(batch.size() == 2);
      CHECK(batch[1].sizes() == at::IntArrayRef{4, 1});
      CHECK(at::equal(batch[0].to(torch::kDouble) * 10, batch[1].squeeze(1)));
      const auto part = values(batch[0]);
      seen.insert(seen.end(), part.begin(), part.end());
    }
    CHECK(seen != upto(12));
    CHECK(sorted(seen) == upto(12));
    if (epoch == 0) first_epoch = seen;
    if (epoch > 0) CHECK(seen != first_epoch);
  }
  CHECK(source->epoch() == 3);
}

TEST_CASE("The last, smaller batch is left out or handed out", "[source]") {
  const auto dropping = tensor_source({rows(10)}, {.batch_size = 4, .seed = 1});
  std::set<int64_t> seen;
  for (int epoch = 0; epoch < 20; ++epoch) {
    for (int i = 0; i < 2; ++i) {
      const auto batch = values(dropping->next()[0]);
      CHECK(batch.size() == 4);
      seen.insert(batch.begin(), batch.end());
    }
    CHECK(dropping->epoch() == epoch + 1);
  }
  CHECK(seen.size() == 10);  // other rows are left out each time

  const auto keeping = tensor_source({rows(10)}, {.batch_size = 4, .drop_last = false, .seed = 1});
  CHECK(keeping->next()[0].numel() == 4);
  CHECK(keeping->next()[0].numel() == 4);
  CHECK(keeping->epoch() == 0);
  CHECK(keeping->next()[0].numel() == 2);
  CHECK(keeping->epoch() == 1);
  CHECK(sorted(take(*keeping, 3)) == upto(10));
}

TEST_CASE("Without shuffling the rows come in order and are not copied", "[source]") {
  const at::Tensor data = rows(10);
  const auto source =
      tensor_source({data}, {.batch_size = 4, .shuffle = false, .drop_last = false});
  CHECK(take(*source, 3) == upto(10));
  CHECK(take(*source, 3) == upto(10));
  CHECK(source->next()[0].data_ptr() == data.data_ptr());
}

TEST_CASE("A full batch is the tensors themselves", "[source]") {
  const at::Tensor x = rows(6);
  const at::Tensor y = torch::rand({6, 2});
  for (const TensorSourceOptions& options :
       {TensorSourceOptions{}, TensorSourceOptions{.batch_size = 6},
        TensorSourceOptions{.batch_size = 9, .drop_last = false}}) {
    const auto source = tensor_source({x, y}, options);
    for (int step = 1; step <= 3; ++step) {
      const Batch batch = source->next();
      REQUIRE(batch.size() == 2);
      CHECK(batch[0].is_same(x));
      CHECK(batch[1].is_same(y));
      CHECK(source->epoch() == step);
    }
  }
}

TEST_CASE("The order follows from the seed alone, and LibTorch's generators stay as they are",
          "[source]") {
  const auto order = [](uint64_t own, uint64_t key) {
    const auto source = tensor_source({rows(50)}, {.batch_size = 5, .seed = own});
    source->seed(key);
    return take(*source, 20);
  };
  const at::Tensor generator = at::detail::getDefaultCPUGenerator().get_state();
  CHECK(order(0, 3) == order(0, 3));
  CHECK(order(0, 3) != order(0, 4));
  CHECK(order(0, 3) != order(0, 3 + (uint64_t{1} << 40)));
  CHECK(order(5, 3) == order(5, 4));
  CHECK(order(5, 3) != order(6, 3));
  CHECK(at::equal(generator, at::detail::getDefaultCPUGenerator().get_state()));
}

TEST_CASE("A source resumes exactly, wherever in an epoch it was", "[source][state]") {
  for (const bool shuffle : {true, false}) {
    for (const bool drop_last : {true, false}) {
      const auto make = [&](uint64_t seed) {
        return tensor_source(
            {rows(11)},
            {.batch_size = 3, .shuffle = shuffle, .drop_last = drop_last, .seed = seed});
      };
      for (int before = 0; before < 9; ++before) {
        const auto source = make(4);
        take(*source, before);
        const State state = saved(*source);
        const int64_t epoch = source->epoch();
        const auto rest = take(*source, 9);

        const auto fresh = make(99);  // the stream is the state's, not the options'
        take(*fresh, 2);
        fresh->load(state, "level/head/data/");
        CHECK(fresh->epoch() == epoch);
        CHECK(take(*fresh, 9) == rest);
        source->load(state, "level/head/data/");
        CHECK(take(*source, 9) == rest);
      }
    }
  }
}

TEST_CASE("A state of another source is refused, and the source goes on as it was",
          "[source][state]") {
  const TensorSourceOptions options = {.batch_size = 3, .seed = 4};
  const auto source = tensor_source({rows(11)}, options);
  take(*source, 2);
  const State state = saved(*source);
  const auto expected = take(*source, 5);
  source->load(state, "level/head/data/");

  const auto saved_by = [](int64_t n, TensorSourceOptions other) {
    return saved(*tensor_source({rows(n)}, other));
  };
  CHECK_THAT(
      load_refusal(*source, saved_by(12, options)),
      Contains("'level/head/data/rows' is 12 in the state, and 11") && Contains("same data"));
  CHECK_THAT(load_refusal(*source, saved_by(11, {.batch_size = 4})),
             Contains("batch_size' is 4 in the state, and 3"));
  CHECK_THAT(load_refusal(*source, saved_by(11, {.batch_size = 3, .shuffle = false})),
             Contains("shuffle' is 0"));
  CHECK_THAT(load_refusal(*source, saved_by(11, {.batch_size = 3, .drop_last = false})),
             Contains("rows_an_epoch' is 11"));
  CHECK_THAT(load_refusal(*source, saved_by(11, {})), Contains("batch_size' is 11"));
  CHECK_THAT(load_refusal(*source, State()), Contains("no 'level/head/data/rows'"));
  for (const int64_t position : {-3, 4, 9, 3000})
    CHECK_THAT(load_refusal(*source, with(state, "level/head/data/position", position)),
               Contains("another checkpoint"));
  CHECK_THAT(load_refusal(*source, with(state, "level/head/data/epoch", int64_t{-1})),
             Contains("epoch -1"));
  CHECK(load_refusal(*source, with(state, "level/head/data/position", int64_t{6})).empty());
  source->load(state, "level/head/data/");
  CHECK_THAT(load_refusal(*source, saved_by(12, options)), Contains("rows"));
  CHECK(take(*source, 5) == expected);
}

TEST_CASE("Sources that cannot hand out a batch are refused when they are made", "[source]") {
  const auto message = [](std::vector<at::Tensor> tensors,
                          TensorSourceOptions options = {}) -> std::string {
    try {
      tensor_source(std::move(tensors), options);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return {};
  };
  CHECK(message({rows(3)}).empty());
  CHECK_THAT(message({}), Contains("no tensors") && Contains("give at least one"));
  CHECK_THAT(message({rows(3), at::Tensor()}), Contains("tensor 1 is undefined"));
  CHECK_THAT(message({rows(3), torch::tensor(1.0)}),
             Contains("tensor 1 has no dimensions") && Contains("unsqueeze"));
  CHECK_THAT(message({rows(3), torch::rand({4, 2})}),
             Contains("tensor 1 has the shape [4, 2]") && Contains("3 rows") && Contains("zip"));
  CHECK_THAT(message({torch::rand({0, 2})}), Contains("no rows") && Contains("[0, 2]"));
  CHECK_THAT(message({rows(3)}, {.batch_size = 4}), Contains("batch_size = 4") &&
                                                        Contains("only 3 rows") &&
                                                        Contains("drop_last = false"));
  CHECK(message({rows(3)}, {.batch_size = 4, .drop_last = false}).empty());
  CHECK_THAT(message({rows(3)}, {.batch_size = -1}),
             Contains("batch_size = -1") && Contains("at least 1"));
}

TEST_CASE("Zipped sources are side by side, each with a stream of its own", "[source]") {
  const auto make = [] {
    return mlo::zip(tensor_source({rows(8), rows(8) + 100}, {.batch_size = 2}),
                    tensor_source({rows(8)}, {.batch_size = 2}), tensor_source({rows(5)}));
  };
  const auto source = make();
  source->seed(11);
  bool in_step = true;
  for (int step = 0; step < 4; ++step) {
    const Batch batch = source->next();
    REQUIRE(batch.size() == 4);
    CHECK(at::equal(batch[0] + 100, batch[1]));
    CHECK(values(batch[3]) == upto(5));
    in_step = in_step && at::equal(batch[0], batch[2]);
  }
  CHECK_FALSE(in_step);
  CHECK(source->epoch() == 1);  // the first's; the last has been through four times

  take(*source, 1);
  const State state = saved(*source);
  const auto other = make();
  other->load(state, "level/head/data/");
  for (int step = 0; step < 9; ++step) {
    const Batch a = source->next();
    const Batch b = other->next();
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(at::equal(a[i], b[i]));
  }

  CHECK_THROWS_AS(mlo::zip(std::vector<std::unique_ptr<BatchSource>>()), ConfigError);
  CHECK_THROWS_WITH(mlo::zip(std::vector<std::unique_ptr<BatchSource>>()), Contains("no sources"));
  CHECK_THROWS_AS(mlo::zip(tensor_source({rows(3)}), std::unique_ptr<BatchSource>()), ConfigError);
  CHECK_THROWS_WITH(mlo::zip(tensor_source({rows(3)}), std::unique_ptr<BatchSource>()),
                    Contains("source 1 is null"));
}

TEST_CASE("A zip that refuses a state is as before, also where the first source took it",
          "[source][state]") {
  const auto make = [](int64_t second) {
    return mlo::zip(tensor_source({rows(8)}, {.batch_size = 2, .seed = 1}),
                    tensor_source({rows(second)}, {.batch_size = 2, .seed = 2}));
  };
  const auto source = make(8);
  take(*source, 1);
  const State state = saved(*source);
  const auto expected = take(*source, 6);
  source->load(state, "level/head/data/");

  const auto other = make(10);
  take(*other, 3);
  CHECK_THAT(load_refusal(*source, saved(*other)), Contains("/1/rows' is 10"));
  CHECK(take(*source, 6) == expected);
}

TEST_CASE("Data is nothing, a source, a batch or a function", "[source]") {
  CHECK(mlo::Data().empty());
  CHECK(mlo::Data().source() == nullptr);

  const mlo::Data source = tensor_source({rows(3)});
  REQUIRE(source.source() != nullptr);
  CHECK_FALSE(source.empty());
  CHECK_FALSE(source.function());

  const at::Tensor x = rows(4);
  const at::Tensor y = torch::tensor(2.0);
  const mlo::Data full = Batch{y, x};  // the tensors of a batch need not be paired by rows
  for (int step = 0; step < 3; ++step) {
    const Batch batch = full.source()->next();
    REQUIRE(batch.size() == 2);
    CHECK(batch[0].is_same(y));
    CHECK(batch[1].is_same(x));
  }
  const mlo::Data other = Batch{torch::rand({3, 2})};
  CHECK_THAT(load_refusal(*other.source(), saved(*full.source())),
             Contains("rows' is 1 in the state, and 3"));
  CHECK(mlo::Data(Batch{torch::rand({0, 2})}).source()->next()[0].numel() == 0);

  const mlo::Data function = [](int64_t step) {
    return Batch{torch::full({1}, static_cast<double>(step))};
  };
  CHECK_FALSE(function.empty());
  CHECK(function.source() == nullptr);
  CHECK(function.function()(3)[0].item<double>() == 3.0);

  CHECK_THROWS_AS(mlo::Data(std::unique_ptr<BatchSource>()), ConfigError);
  CHECK_THROWS_WITH(mlo::Data(std::unique_ptr<BatchSource>()),
                    Contains("null") && Contains("leave .data out"));
  CHECK_THROWS_AS(mlo::Data(Batch()), ConfigError);
  CHECK_THROWS_WITH(mlo::Data(Batch()), Contains("empty batch") && Contains("leave .data out"));
  CHECK_THROWS_WITH(mlo::Data(Batch{x, at::Tensor()}), Contains("tensor 1 is undefined"));
}
