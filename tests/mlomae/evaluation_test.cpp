// How encoders are judged: the probe against Newton's method, the neighbours against a loop,
// fine-tuning on a toy set.
#include "mlomae/evaluation/classifier.h"
#include "mlomae/evaluation/features.h"
#include "mlomae/evaluation/features_file.h"
#include "mlomae/evaluation/finetune.h"
#include "mlomae/evaluation/knn.h"
#include "mlomae/evaluation/linear_probe.h"
#include "mlomae/run/score.h"

#include "io/files.h"

#include <ATen/ATen.h>
#include <mlo/data/image_source.h>
#include <mlo/error.h>
#include <mlo/io/safetensors.h>
#include <torch/optim/adamw.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cstring>

#include "catch.h"

using namespace mlomae;

namespace {

// Minimum of the penalized loss by Newton's method with the whole Hessian, in double.
at::Tensor by_newton(const at::Tensor& x, const at::Tensor& y, int64_t classes, double strength) {
  const int64_t dim = x.size(1), n = x.size(0), size = (dim + 1) * classes;
  const at::Tensor with_one = torch::cat({x, torch::ones({n, 1}, at::kDouble)}, 1),
                   target = torch::one_hot(y, classes).to(at::kDouble);
  at::Tensor w = torch::zeros({dim + 1, classes}, at::kDouble);
  at::Tensor penalty = strength * torch::ones({dim + 1, classes}, at::kDouble);
  penalty[dim].zero_();
  for (int i = 0; i < 50; ++i) {
    const at::Tensor p = with_one.matmul(w).softmax(1);
    const at::Tensor g = (with_one.t().matmul(p - target) / n + penalty * w).flatten();
    at::Tensor h = torch::zeros({size, size}, at::kDouble);
    for (int64_t r = 0; r < n; ++r) {
      const at::Tensor s = torch::diag(p[r]) - p[r].outer(p[r]);
      h += torch::kron(with_one[r].outer(with_one[r]).contiguous(), s.contiguous()) / n;
    }
    h += torch::diag(penalty.flatten()) +
         1e-12 * torch::eye(size, at::kDouble);  // intercepts may all move together
    w = w - std::get<0>(torch::linalg_lstsq(h, g.unsqueeze(1))).view({dim + 1, classes});
  }
  return w;
}

// Three classes of images that differ by where they are bright.
std::shared_ptr<const mlo::ImageSet> toy(int64_t count, uint64_t seed) {
  torch::manual_seed(seed);
  const at::Tensor labels = torch::arange(count).remainder(3);
  at::Tensor images = torch::randint(0, 60, {count, 1, 8, 8}, at::kByte);
  for (int64_t i = 0; i < count; ++i) images[i][0].narrow(0, 2 * (i % 3), 3) += 150;
  return mlo::tensor_images(images, labels, {"a", "b", "c"});
}

Dataset toy_data() {
  Dataset d;
  d.name = "toy", d.format = "tensor";
  d.train = toy(240, 1);
  d.test = toy(90, 2);
  d.image_size = 8;
  d.mean = {0.3}, d.deviation = {0.3};
  return d;
}

ModelOptions tiny() {
  ModelOptions o;
  o.image_size = 8, o.channels = 1, o.patch = 4, o.dim = 16, o.depth = 2, o.heads = 2,
  o.decoder_dim = 8, o.decoder_depth = 1, o.decoder_heads = 2;
  return o;
}

}  // namespace

TEST_CASE("The linear probe finds the minimum that Newton's method finds", "[mlomae][evaluation]") {
  torch::manual_seed(2);
  const at::Tensor x = torch::randn({60, 4}, at::kDouble), y = torch::randint(0, 3, {60});
  for (const double strength : {1e-2, 1.0}) {
    const at::Tensor w = logistic_regression(x, y, 3, strength, 500),
                     expected = by_newton(x, y, 3, strength);
    CHECK((w.narrow(0, 0, 4) - expected.narrow(0, 0, 4)).abs().max().item<double>() < 1e-5);
    const at::Tensor bias = w[4] - w[4].mean(), expected_bias = expected[4] - expected[4].mean();
    CHECK((bias - expected_bias).abs().max().item<double>() < 1e-5);
  }
}

TEST_CASE("The linear probe separates what can be, and not what cannot", "[mlomae][evaluation]") {
  torch::manual_seed(3);
  const at::Tensor y = torch::randint(0, 4, {600}), centres = 3.0 * torch::randn({4, 10});
  const at::Tensor x = centres.index_select(0, y) + 0.3 * torch::randn({600, 10});
  const auto split = [](const at::Tensor& t) {
    return std::pair(t.narrow(0, 0, 400), t.narrow(0, 400, 200));
  };
  const auto [train, test] = split(x);
  const auto [labels, test_labels] = split(y);
  const LinearProbe probe = linear_probe(train, labels, test, test_labels, 4);
  CHECK(probe.accuracy == 1.0);
  CHECK(linear_probe(train, labels, test, test_labels, 4).accuracy == probe.accuracy);
  // Scale and offset of a feature make no difference.
  CHECK(linear_probe(train * 1e4 + 7, labels, test * 1e4 + 7, test_labels, 4).accuracy == 1.0);
  // Labels that have nothing to do with the features: chance, and a strong penalty is chosen.
  const at::Tensor shuffled = labels.index_select(0, torch::randperm(400));
  const LinearProbe control = linear_probe(train, shuffled, test, test_labels, 4);
  CHECK(control.accuracy < 0.6);
  CHECK(control.strength >= 1e-2);
}

TEST_CASE("Nearest neighbours vote as a loop says", "[mlomae][evaluation]") {
  torch::manual_seed(4);
  const at::Tensor x = torch::randn({80, 6}), y = torch::randint(0, 3, {80}),
                   q = torch::randn({2100, 6}), a = torch::randint(0, 3, {2100});
  for (const int64_t k : {1, 7, 200}) {
    int64_t right = 0;
    for (int64_t i = 0; i < q.size(0); ++i) {
      std::vector<std::pair<double, int64_t>> all;
      for (int64_t j = 0; j < 80; ++j) {
        const double s =
            torch::cosine_similarity(q[i].to(at::kDouble), x[j].to(at::kDouble), 0).item<double>();
        all.emplace_back(-s, y[j].item<int64_t>());
      }
      std::sort(all.begin(), all.end());
      double votes[3] = {};
      for (int64_t j = 0; j < std::min<int64_t>(k, 80); ++j)
        votes[all[static_cast<std::size_t>(j)].second] +=
            std::exp(-all[static_cast<std::size_t>(j)].first / 0.07);
      right += std::max_element(votes, votes + 3) - votes == a[i].item<int64_t>() ? 1 : 0;
      if (i == 150) break;  // the loop is slow: the first ones, and the blocks by their sum
    }
    const double part =
        knn_accuracy(x, y, q.narrow(0, 0, 151), a.narrow(0, 0, 151), 3, {.neighbours = k});
    CHECK(part == Approx(static_cast<double>(right) / 151));
    const double whole = knn_accuracy(x, y, q, a, 3, {.neighbours = k});
    const double rest =
        knn_accuracy(x, y, q.narrow(0, 151, 1949), a.narrow(0, 151, 1949), 3, {.neighbours = k});
    CHECK(whole * 2100 == Approx(part * 151 + rest * 1949));
  }
}

TEST_CASE("Features are the encoder's, in evaluation mode, in order", "[mlomae][evaluation]") {
  torch::manual_seed(5);
  ModelOptions o = tiny();
  o.dropout = 0.5;
  MaskedAutoencoder mae(o);
  const Dataset d = toy_data();
  const Features f = features(mae, *d.train, {5, 9, 2}, d.plain(), 2);
  CHECK(at::equal(f.labels, torch::tensor({2, 0, 2})));
  CHECK(mae->is_training());
  mae->eval();
  const at::Tensor tokens = mae->tokens(mlo::image_batch(*d.train, {5, 9, 2}, 0, 3, d.plain())[0]);
  CHECK(at::allclose(f.class_token, tokens.select(1, 0), 1e-5, 1e-6));
  CHECK(at::allclose(f.mean, tokens.narrow(1, 1, 4).mean(1), 1e-5, 1e-6));
}

TEST_CASE("Fine-tuning learns, and is the same again with the same seed", "[mlomae][evaluation]") {
  const auto run = [](uint64_t seed) {
    torch::manual_seed(6);
    MaskedAutoencoder mae(tiny());
    const at::Tensor decoder = mae->named_parameters()["decoder_pred.weight"].clone();
    const Dataset d = toy_data();
    const Finetuned result =
        finetune(mae, d, d.plain(),
                 {.epochs = 12, .batch = 24, .lr = 3e-3, .layer_decay = 0.8, .seed = seed});
    CHECK(result.steps == 120);
    CHECK(at::equal(mae->named_parameters()["decoder_pred.weight"], decoder));
    return std::pair(result.accuracy, mae->named_parameters()["blocks.1.mlp.fc1.weight"].clone());
  };
  const auto [accuracy, weight] = run(1);
  CHECK(accuracy > 0.95);
  CHECK(at::equal(run(1).second, weight));
  CHECK_FALSE(at::equal(run(2).second, weight));
}

namespace {

// The toy images, of which the last cannot be read.
class Broken final : public mlo::ImageSet {
 public:
  explicit Broken(std::shared_ptr<const mlo::ImageSet> images) : images_(std::move(images)) {}
  int64_t size() const override { return images_->size(); }
  int64_t channels() const override { return images_->channels(); }
  const std::vector<std::string>& classes() const override { return images_->classes(); }
  int64_t label(int64_t i) const override { return images_->label(i); }
  at::Tensor image(int64_t i) const override {
    if (i == size() - 1) throw mlo::Error("image " + std::to_string(i) + " is broken");
    return images_->image(i);
  }

 private:
  std::shared_ptr<const mlo::ImageSet> images_;
};

}  // namespace

TEST_CASE("An image that cannot be read leaves an encoder's modes as they were",
          "[mlomae][evaluation]") {
  torch::manual_seed(7);
  Dataset d = toy_data();
  d.test = std::make_shared<Broken>(d.test);
  MaskedAutoencoder mae(tiny());
  mae->named_modules()["blocks.1"]->eval();  // modes may differ within it
  mae->named_parameters()["decoder_pred.bias"].set_requires_grad(false);
  const auto same = [&] {
    for (const auto& item : mae->named_modules()) {
      INFO(item.key());
      CHECK(item.value()->is_training() == !item.key().starts_with("blocks.1"));
    }
    for (const auto& item : mae->named_parameters()) {
      INFO(item.key());
      CHECK(item.value().requires_grad() ==
            !(item.key() == "decoder_pred.bias" || item.key().ends_with("pos_embed")));
    }
  };
  same();
  CHECK_THROWS_WITH(features(mae, *d.test, {}, d.plain(), 20), Contains("is broken"));
  same();
  CHECK_THROWS_WITH(finetune(mae, d, d.plain(), {.epochs = 0.1, .batch = 24}),
                    Contains("is broken"));
  same();
}

TEST_CASE("Learning rates decay from layer to layer", "[mlomae][evaluation]") {
  MaskedAutoencoder mae(tiny());
  Head head(HeadOptions{.dim = 16, .classes = 3});
  mlo::Tensors all;
  std::map<const void*, std::string> names;
  for (const auto& item : mae->named_parameters()) {
    if (item.key().starts_with("decoder") || item.key() == "mask_token" ||
        !item.value().requires_grad())
      continue;
    all.push_back(item.value());
    names[item.value().unsafeGetTensorImpl()] = item.key();
  }
  for (const auto& item : head->named_parameters())
    all.push_back(item.value()),
        names[item.value().unsafeGetTensorImpl()] = "classifier." + item.key();
  const auto optimizer =
      layerwise_adamw(mae, head, {.lr = 1.0, .weight_decay = 0.1, .layer_decay = 0.5})(all);
  std::size_t seen = 0;
  for (const auto& group : optimizer->param_groups()) {
    for (const at::Tensor& p : group.params()) {
      const std::string& name = names.at(p.unsafeGetTensorImpl());
      INFO(name);
      const double expected = name.starts_with("blocks.0")                                 ? 0.25
                              : name.starts_with("blocks.1")                               ? 0.5
                              : name.starts_with("norm") || name.starts_with("classifier") ? 1.0
                                                                                           : 0.125;
      CHECK(group.options().get_lr() == expected);
      CHECK(static_cast<const torch::optim::AdamWOptions&>(group.options()).weight_decay() ==
            (p.dim() >= 2 ? 0.1 : 0.0));
      ++seen;
    }
  }
  CHECK(seen == all.size());
}

TEST_CASE("Features are written as they are, in the format of the file's ending",
          "[mlomae][evaluation]") {
  const TemporaryFolder folder;
  const Features f{torch::tensor({{1.0F, 0.1F, -2.5F}, {0.0F, 1e-20F, 3.0F}}),
                   torch::tensor({{4.0F, 5.0F, 6.0F}, {7.0F, 8.0F, 9.0F}}),
                   torch::zeros({2}, at::kLong)};
  const std::vector<std::string> names = {"a/\"1\",x.png", "b.png"};
  write_features(folder / "f.csv", names, f, "class");
  CHECK(read_bytes(folder / "f.csv") ==
        "image,class0,class1,class2\n\"a/\"\"1\"\",x.png\",1,0.1,-2.5\nb.png,0,1e-20,3\n");
  write_features(folder / "f.npy", names, f, "mean");
  const std::string npy = read_bytes(folder / "f.npy");
  REQUIRE(npy.size() > 10);
  const std::size_t header =
      10 + static_cast<unsigned char>(npy[8]) + 256U * static_cast<unsigned char>(npy[9]);
  CHECK(npy.substr(0, 8) == std::string("\x93NUMPY\x01\x00", 8));
  CHECK(header % 64 == 0);
  CHECK_THAT(npy.substr(10, header - 10), Contains("'descr': '<f4'") &&
                                              Contains("'fortran_order': False") &&
                                              Contains("'shape': (2, 3)"));
  REQUIRE(npy.size() == header + 6 * sizeof(float));
  CHECK(std::memcmp(npy.data() + header, f.mean.const_data_ptr(), 6 * sizeof(float)) == 0);
  write_features(folder / "f.safetensors", names, f, "class");
  const mlo::Safetensors back = mlo::read_safetensors(folder / "f.safetensors");
  CHECK(at::equal(back.at("class"), f.class_token));
  CHECK(at::equal(back.at("mean"), f.mean));
  CHECK(nlohmann::json::parse(back.metadata.at("images")) == nlohmann::json(names));
  CHECK_THROWS_WITH(write_features(folder / "f.txt", names, f, "class"),
                    Contains("f.txt") && Contains(".npy"));
}

TEST_CASE("Probes and fine-tuned models predict after being read back as before",
          "[mlomae][evaluation]") {
  const TemporaryFolder folder;
  torch::manual_seed(8);
  const at::Tensor x = torch::randn({60, 4}), y = torch::randint(0, 3, {60});
  const LinearProbe probe = linear_probe(x, y, x, y, 3);
  CHECK(probe.logits(x).argmax(1).eq(y).to(at::kDouble).mean().item<double>() ==
        Approx(probe.accuracy));
  write_probes(folder / "p.safetensors", {.classes = {"a", "b", "c"},
                                          .of_feature = {{"class", probe}, {"mean", probe}},
                                          .encoder = "e"});
  const Probes back = read_probes(folder / "p.safetensors");
  CHECK(back.classes == std::vector<std::string>{"a", "b", "c"});
  CHECK(back.encoder == "e");
  CHECK(at::equal(back.of("mean").logits(x), probe.logits(x)));
  CHECK_THROWS_WITH(back.of("other"), Contains("'class', 'mean'"));

  MaskedAutoencoder mae(tiny());
  Head head(HeadOptions{.dim = 16, .classes = 3, .dropout = 0.0});
  write_classifier(folder / "c.safetensors", mae, head, {"a", "b", "c"});
  Classifier c = read_classifier(folder / "c.safetensors");
  const at::Tensor images = torch::randn({2, 1, 8, 8});
  mae->eval(), c.mae->eval();
  CHECK(at::equal(c.head->forward(c.mae->features(images)), head->forward(mae->features(images))));
  CHECK(checksum(c.mae) == checksum(mae));
  {
    const at::NoGradGuard no_grad;
    c.mae->named_parameters()["norm.bias"][3] += 1e-6;
  }
  CHECK(checksum(c.mae) != checksum(mae));
  write_classifier(folder / "c.safetensors", mae, head, {"a", "b"});
  CHECK_THROWS_WITH(read_classifier(folder / "c.safetensors"),
                    Contains("c.safetensors") && Contains("2 names of classes for 3"));
}

TEST_CASE("Scores are kept and read back", "[mlomae][evaluation]") {
  const TemporaryFolder folder;
  CHECK(read_scores(folder / "run").empty());
  write_scores(folder / "run",
               {{.kind = "knn",
                 .feature = "class",
                 .accuracy = 0.25,
                 .images = 300,
                 .seconds = 1.5,
                 .settings = {{"neighbours", 20}},
                 .encoder = "e"},
                {.kind = "knn", .feature = "mean", .accuracy = 0.5, .images = 300}});
  const std::vector<Score> back = read_scores(folder / "run");
  REQUIRE(back.size() == 2);
  CHECK(back[0].feature == "class");
  CHECK(back[0].standard_error() == Approx(std::sqrt(0.25 * 0.75 / 300)));
  CHECK(back[0].settings["neighbours"] == 20);
  CHECK(back[0].encoder == "e");
  CHECK(back[1].encoder.empty());
  write_bytes(folder / "run/evaluation/knn.json",
              R"([{"kind":"knn","feature":"class","accuracy":1.5,"images":3,"seconds":1}])");
  CHECK_THROWS_WITH(read_scores(folder / "run"), Contains("knn.json"));
  write_bytes(folder / "run/evaluation/knn.json", "[");
  CHECK_THROWS_WITH(read_scores(folder / "run"),
                    Contains("knn.json") && Contains("evaluate again"));
}

TEST_CASE("What is not finite is no score", "[mlomae][evaluation]") {
  torch::manual_seed(9);
  const Dataset d = toy_data();
  MaskedAutoencoder mae(tiny());
  CHECK_THROWS_AS(
      finetune(mae, d, d.plain(), {.epochs = 0.1, .batch = 240, .lr = 1e37, .layer_decay = 1.0}),
      mlo::NonFiniteError);
  CHECK_THROWS_WITH(
      finetune(MaskedAutoencoder(tiny()), d, d.plain(), {.epochs = 0.1, .batch = 240, .lr = 1e38}),
      Contains("level 'finetune' at step 0") && Contains("learning rate"));
  CHECK_THROWS_WITH(features(mae, *d.train, {}, d.plain(), 100),
                    Contains("features are not finite"));
  // Weights that are finite, and too large for what they are multiplied with.
  MaskedAutoencoder large(tiny());
  {
    const at::NoGradGuard no_grad;
    large->named_parameters()["norm.weight"].fill_(3e38);
  }
  CHECK_THROWS_WITH(features(large, *d.train, {}, d.plain(), 100), Contains("not finite"));
  at::Tensor x = torch::randn({60, 4});
  const at::Tensor y = torch::randint(0, 3, {60});
  x[59][0] = NAN;
  CHECK_THROWS_WITH(linear_probe(x.narrow(0, 0, 50), y.narrow(0, 0, 50), x, y, 3),
                    Contains("not finite"));
}

TEST_CASE("Votes do not overflow, however small the temperature", "[mlomae][evaluation]") {
  torch::manual_seed(10);
  const at::Tensor x = torch::randn({80, 6}), y = torch::randint(0, 3, {80});
  // At the limit the nearest one alone counts.
  CHECK(knn_accuracy(x, y, x, y, 3, {.neighbours = 7, .temperature = 1e-6}) == 1.0);
}
