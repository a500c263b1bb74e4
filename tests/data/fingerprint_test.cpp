// Fingerprints of data: the same for the same data, wherever it lies, and another for other data,
// batches or looks.
#include "io/files.h"

#include <mlo/data/image_file.h>
#include <mlo/data/image_source.h>
#include <mlo/error.h>

#include <torch/types.h>
#include <torch/utils.h>

#include <set>

#include "catch.h"

namespace {

std::string of(std::vector<at::Tensor> tensors, mlo::TensorSourceOptions options = {}) {
  return mlo::tensor_source(std::move(tensors), options)->fingerprint();
}

at::Tensor numbers(int64_t rows, int64_t columns) {
  return torch::arange(rows * columns, torch::kFloat).view({rows, columns});
}

/// Two classes of three small images in a folder.
void fill(const std::filesystem::path& folder) {
  torch::manual_seed(5);
  for (const char* name : {"cat", "dog"}) {
    std::filesystem::create_directories(folder / name);
    for (int i = 0; i < 3; ++i)
      mlo::write_png(folder / name / (std::to_string(i) + ".png"),
                     torch::randint(0, 256, {3, 8, 8}, at::kByte));
  }
}

/// What a user writes, without a fingerprint of its own.
struct Own final : mlo::ImageSet {
  int64_t size() const override { return 40; }
  int64_t channels() const override { return 1; }
  const std::vector<std::string>& classes() const override { return names; }
  int64_t label(int64_t i) const override { return i % 2; }
  at::Tensor image(int64_t i) const override {
    if (i == broken) throw mlo::Error("no image");
    return torch::full({1, 4, 4}, shade + i, at::kByte);
  }
  std::vector<std::string> names = {"a", "b"};
  int64_t shade = 3, broken = -1;
};

}  // namespace

TEST_CASE("Tensors are known by shape, type, contents and how they are handed out",
          "[fingerprint]") {
  const at::Tensor x = numbers(12, 3), y = torch::arange(12);
  CHECK(of({x, y}) == of({x.clone(), y.clone()}));
  CHECK(of({x}) == of({x.t().contiguous().t()}));  // the same values, laid out otherwise
  CHECK(of({x}).starts_with("Float[12, 3] "));
  at::Tensor other = x.clone();
  other[11][2] += 1;
  const std::set<std::string> all = {of({x}),
                                     of({x, y}),
                                     of({y, x}),
                                     of({other}),
                                     of({x.to(at::kDouble)}),
                                     of({x.view({12, 1, 3})}),
                                     of({x}, {.batch_size = 5}),
                                     of({x}, {.batch_size = 4}),
                                     of({x}, {.batch_size = 5, .drop_last = false}),
                                     of({x}, {.batch_size = 5, .shuffle = false}),
                                     of({x}, {.batch_size = 5, .seed = 1}),
                                     of({x}, {.batch_size = 5, .seed = 2})};
  CHECK(all.size() == 12);
  std::vector<std::unique_ptr<mlo::BatchSource>> two;
  for (int i = 0; i < 2; ++i) two.push_back(mlo::tensor_source({x}));
  CHECK(mlo::zip(std::move(two))->fingerprint() == of({x}) + " beside " + of({x}));

  const auto source = mlo::tensor_source({x}, {.batch_size = 5});
  const std::string before = source->fingerprint();
  source->seed(77);
  source->next();
  CHECK(source->fingerprint() == before);
}

TEST_CASE("Of a large tensor the checksum sees a part, the ends among it", "[fingerprint]") {
  const at::Tensor large = torch::zeros({5000, 512});  // 10 MB
  const std::string before = of({large});
  for (const int64_t row : {0, 4999}) {
    at::Tensor other = large.clone();
    other[row][7] = 1;
    CHECK(of({other}) != before);
  }
  CHECK(of({large + 1}) != before);
  CHECK(of({torch::zeros({4999, 512})}) != before);
  const at::Tensor wide = torch::zeros({4, 400000});  // few rows are seen whole
  at::Tensor other = wide.clone();
  other[1][222222] = 1;
  CHECK(of({other}) != of({wide}));
}

TEST_CASE("What is trained or has no values is known by its shape", "[fingerprint]") {
  const at::Tensor trained = torch::randn({4, 2}).requires_grad_();
  CHECK(of({trained}) == "Float[4, 2]");
  CHECK(of({torch::zeros({4, 2}, at::TensorOptions(at::kMeta).dtype(at::kFloat))}) ==
        "Float[4, 2]");
}

TEST_CASE("A folder of images is known by its files, wherever it lies", "[fingerprint][images]") {
  const TemporaryFolder folder;
  fill(folder / "one");
  const auto print = [](const std::filesystem::path& where) {
    return mlo::folder_images(where)->fingerprint();
  };
  const std::string before = print(folder / "one");
  CHECK(before.starts_with("6 files "));
  std::filesystem::rename(folder / "one", folder / "two");
  CHECK(print(folder / "two") == before);
  CHECK(mlo::folder_images(folder / "two", {.channels = 1})->fingerprint() != before);

  mlo::write_png(folder / "two/dog/1.png", torch::zeros({3, 8, 8}, at::kByte));
  const std::string changed = print(folder / "two");
  CHECK(changed != before);
  std::filesystem::rename(folder / "two/dog/1.png", folder / "two/cat/1.png");
  CHECK(print(folder / "two") != changed);
}

TEST_CASE("A source of images is known by its images, rows, batches and looks",
          "[fingerprint][image_source]") {
  torch::manual_seed(3);
  const at::Tensor pixels = torch::randint(0, 256, {9, 3, 8, 8}, at::kByte),
                   labels = torch::arange(9).remainder(3);
  const auto print = [&](const at::Tensor& images, const at::Tensor& classes,
                         const std::vector<int64_t>& rows,
                         const std::function<void(mlo::ImageSourceOptions&)>& change) {
    mlo::ImageSourceOptions options{.batch_size = 2, .augmentation = {.size = 8}};
    if (change) change(options);
    return mlo::image_source(mlo::tensor_images(images, classes), rows, options)->fingerprint();
  };
  at::Tensor other = pixels.clone();
  other[4][1][2][3] += 1;
  const std::set<std::string> all = {
      print(pixels, labels, {}, {}),
      print(other, labels, {}, {}),
      print(pixels, labels.flip(0), {}, {}),
      print(pixels, labels, {0, 1, 2}, {}),
      print(pixels, labels, {0, 1, 3}, {}),
      print(pixels, labels, {}, [](auto& o) { o.batch_size = 3; }),
      print(pixels, labels, {}, [](auto& o) { o.shuffle = false; }),
      print(pixels, labels, {}, [](auto& o) { o.drop_last = false; }),
      print(pixels, labels, {}, [](auto& o) { o.seed = 4; }),
      print(pixels, labels, {}, [](auto& o) { o.augmentation.flip = true; }),
      print(pixels, labels, {}, [](auto& o) { o.augmentation.crop_padding = 1; }),
      print(pixels, labels, {}, [](auto& o) { o.augmentation.size = 6; }),
      print(pixels, labels, {},
            [](auto& o) { o.augmentation.resized_crop = mlo::RandomResizedCrop{}; }),
      print(pixels, labels, {}, [](auto& o) { o.augmentation.mean = {0.5}; })};
  CHECK(all.size() == 14);
  CHECK(print(pixels, labels, {}, {}) ==
        print(pixels.clone(), labels, {0, 1, 2, 3, 4, 5, 6, 7, 8}, [](auto& o) {
          o.workers = 0;
          o.prefetch = 5;
        }));
}

TEST_CASE("A set of the user's own is looked at here and there", "[fingerprint][images]") {
  Own set, darker, named, broken;
  darker.shade = 2;
  named.names = {"a", "c"};
  broken.broken = 0;
  CHECK(set.fingerprint() == Own().fingerprint());
  CHECK(set.fingerprint() != darker.fingerprint());
  CHECK(set.fingerprint() != named.fingerprint());
  CHECK(set.fingerprint() != broken.fingerprint());
}
