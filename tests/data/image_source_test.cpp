#include <mlo/data/image_source.h>
#include <mlo/error.h>

#include <ATen/ATen.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "catch.h"

namespace {

std::shared_ptr<const mlo::ImageSet> images(int64_t count) {
  torch::manual_seed(3);
  return mlo::tensor_images(torch::randint(0, 256, {count, 3, 8, 8}, at::kByte),
                            torch::arange(count));
}

mlo::ImageSourceOptions options(int64_t workers) {
  mlo::ImageSourceOptions o;
  o.batch_size = 4;
  o.augmentation.size = 8;
  o.augmentation.crop_padding = 1;
  o.augmentation.flip = true;
  o.workers = workers;
  o.seed = 11;
  return o;
}

bool same(const mlo::Batch& a, const mlo::Batch& b) {
  return at::equal(a[0], b[0]) && at::equal(a[1], b[1]);
}

class Broken final : public mlo::ImageSet {
 public:
  int64_t size() const override { return 8; }
  int64_t channels() const override { return 1; }
  const std::vector<std::string>& classes() const override { return classes_; }
  int64_t label(int64_t /*i*/) const override { return 0; }
  at::Tensor image(int64_t i) const override {
    if (i == 5) throw mlo::Error("image 'five.jpg' is broken");
    return torch::zeros({1, 8, 8}, at::kByte);
  }

 private:
  std::vector<std::string> classes_ = {"a"};
};

}  // namespace

TEST_CASE("Batches of images are the same with any number of workers", "[image_source]") {
  const auto set = images(18);
  const auto alone = mlo::image_source(set, {}, options(0));
  const auto one = mlo::image_source(set, {}, options(1)),
             three = mlo::image_source(set, {}, options(3));
  for (int i = 0; i < 14; ++i) {  // past three epochs of 4 batches
    const mlo::Batch batch = alone->next();
    CHECK(same(batch, one->next()));
    CHECK(same(batch, three->next()));
    CHECK(alone->epoch() == (i + 1) / 4);
    CHECK(batch[0].sizes() == at::IntArrayRef({4, 3, 8, 8}));
  }
}

TEST_CASE("An epoch of images has each row once, in an order and look of its own",
          "[image_source]") {
  const auto set = images(12);
  const auto source = mlo::image_source(set, {1, 3, 5, 7, 9, 11, 0, 2}, options(1));
  std::vector<at::Tensor> order;
  for (int epoch = 0; epoch < 2; ++epoch) {
    const at::Tensor labels = torch::cat({source->next()[1], source->next()[1]});
    CHECK(at::equal(std::get<0>(labels.sort()), torch::tensor({0, 1, 2, 3, 5, 7, 9, 11})));
    order.push_back(labels);
  }
  CHECK_FALSE(at::equal(order[0], order[1]));

  auto plain = options(0);
  plain.shuffle = false;
  plain.drop_last = false;
  const auto in_order = mlo::image_source(set, {4, 5, 6, 7, 8, 9}, plain);
  const mlo::Batch first = in_order->next();
  CHECK(at::equal(first[1], torch::tensor({4, 5, 6, 7})));
  CHECK(in_order->next()[0].size(0) == 2);
  CHECK(in_order->epoch() == 1);
  CHECK_FALSE(at::equal(in_order->next()[0], first[0]));  // cropped and flipped anew
}

TEST_CASE("A source of images goes on where its state was saved", "[image_source]") {
  const auto set = images(18);
  const auto source = mlo::image_source(set, {}, options(2));
  for (int i = 0; i < 6; ++i) source->next();
  mlo::State state;
  source->save(state, "data/");
  const auto other = mlo::image_source(set, {}, options(1));
  other->next();
  other->load(state, "data/");
  for (int i = 0; i < 6; ++i) CHECK(same(source->next(), other->next()));

  auto larger = options(1);
  larger.batch_size = 5;
  CHECK_THROWS_WITH(mlo::image_source(set, {}, larger)->load(state, "data/"),
                    Contains("batch_size"));

  // Without a seed of its own it takes the engine's.
  auto without = options(1);
  without.seed = 0;
  const auto a = mlo::image_source(set, {}, without), b = mlo::image_source(set, {}, without);
  a->seed(1);
  b->seed(2);
  CHECK_FALSE(same(a->next(), b->next()));
  b->seed(1);
  a->seed(1);
  CHECK(same(a->next(), b->next()));
}

TEST_CASE("An image that cannot be read is reported by the batch that needs it", "[image_source]") {
  for (const int64_t workers : {0, 1, 3}) {
    auto o = options(workers);
    o.batch_size = 2;
    o.shuffle = false;
    const auto source = mlo::image_source(std::make_shared<Broken>(), {}, o);
    CHECK_NOTHROW(source->next());
    CHECK_NOTHROW(source->next());
    CHECK_THROWS_WITH(source->next(), Contains("five.jpg"));
    CHECK_THROWS_WITH(source->next(), Contains("five.jpg"));
  }
  // Destroyed with workers ahead, and before the first batch.
  mlo::image_source(images(18), {}, options(3))->next();
  mlo::image_source(images(18), {}, options(3));
}

TEST_CASE("Evaluation reads rows in order, without crops and flips", "[image_source]") {
  const auto set = images(9);
  mlo::Augmentation plain;
  plain.size = 8;
  const mlo::Batch batch = mlo::image_batch(*set, {8, 2, 4}, 1, 3, plain);
  CHECK(at::equal(batch[1], torch::tensor({2, 4})));
  CHECK(at::allclose(batch[0][0], set->image(2).to(at::kFloat) / 255, 1e-5, 1e-6));
  CHECK_THROWS_AS(mlo::image_batch(*set, {1}, 0, 2, plain), mlo::ConfigError);
}

TEST_CASE("A source of images that cannot work is refused", "[image_source]") {
  const auto set = images(3);
  CHECK_THROWS_WITH(mlo::image_source(set, {}, options(1)), Contains("only 3 images"));
  CHECK_THROWS_WITH(mlo::image_source(set, {0, 1, 2, 3}, options(1)), Contains("row 3"));
  CHECK_THROWS_WITH(mlo::image_source(nullptr, {}, options(1)), Contains("null"));
  auto o = options(-1);
  CHECK_THROWS_WITH(mlo::image_source(set, {}, o), Contains("workers"));
}
