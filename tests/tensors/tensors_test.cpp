#include "mlo/tensors.h"

#include "mlo/error.h"

#include <ATen/ATen.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>

#include "complaint.h"

using namespace mlo;

namespace {

constexpr int64_t kLarge = 100'003;  // several ranges, and a rest

/// Layouts that take different ways through the code: short, long, dense but transposed, with gaps,
/// empty, one number.
Tensors layouts(at::ScalarType dtype) {
  Tensors result{at::randn({20}),       at::randn({kLarge}),
                 at::randn({5, 7}).t(), at::randn({6, 8}).slice(1, 0, 8, 2),
                 at::randn({0, 3}),     at::randn({})};
  for (auto& t : result) {
    const auto converted = t.to(dtype);
    t = converted.strides() == t.strides()
            ? converted
            : at::empty_strided(t.sizes(), t.strides(), dtype).copy_(t);
  }
  return result;
}

Tensors requiring_grad(Tensors tensors) {
  for (auto& t : tensors) {
    t.requires_grad_();
  }
  return tensors;
}

double exact_dot(const Tensors& a, const Tensors& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += (a[i].detach().to(at::kDouble) * b[i].detach().to(at::kDouble)).sum().item<double>();
  }
  return sum;
}

}  // namespace

TEST_CASE("lists of tensors add, scale and copy whatever the dtype and layout", "[tensors]") {
  torch::manual_seed(1);
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    INFO(toString(dtype));
    const auto x = requiring_grad(layouts(dtype));
    const auto y = layouts(dtype);
    // The second list the other way round in memory, so that no pair lies alike.
    Tensors z;
    for (const auto& t : y) {
      z.push_back(t.dim() == 2 ? t.t().contiguous().t() : t);
    }
    const double tolerance = dtype == at::kDouble  ? 1e-15
                             : dtype == at::kFloat ? 1e-7
                             : dtype == at::kHalf  ? 1e-3
                                                   : 1e-2;

    for (const auto& other : {y, z}) {
      CHECK(dot(x, other) == Approx(exact_dot(x, other)).epsilon(1e-12));

      auto sum = clone(x);
      add_scaled(sum, other, -0.3);
      auto product = clone(other);
      scale(product, 0.7);
      const auto fresh = scaled(other, 0.7);
      Tensors copy = clone(x);
      copy_values(copy, other);
      for (size_t i = 0; i < x.size(); ++i) {
        INFO("tensor " << i);
        const auto wx = x[i].detach().to(at::kDouble), wo = other[i].to(at::kDouble);
        CHECK(at::allclose(sum[i].to(at::kDouble), wx - 0.3 * wo, tolerance, tolerance));
        CHECK(at::allclose(product[i].to(at::kDouble), 0.7 * wo, tolerance, tolerance));
        CHECK(at::equal(fresh[i], product[i]));
        CHECK(at::equal(copy[i], other[i]));
        CHECK(fresh[i].scalar_type() == dtype);
        CHECK_FALSE(sum[i].requires_grad());
        CHECK_FALSE((other[i].numel() > 0 && copy[i].is_alias_of(other[i])));
      }
    }
    CHECK(norm(x) == Approx(std::sqrt(exact_dot(x, x))));
    CHECK(numel(x) == 20 + kLarge + 35 + 24 + 0 + 1);
  }
}

TEST_CASE("sums are accumulated in double and do not depend on the number of threads",
          "[tensors]") {
  // In float32, 2²⁴ + 1 is 2²⁴.
  auto big = at::ones({kLarge});
  big[0] = 16777216.0;
  const Tensors a{big}, ones{at::ones({kLarge})};
  CHECK(dot(a, ones) == 16777216.0 + static_cast<double>(kLarge - 1));

  torch::manual_seed(2);
  const Tensors x{at::randn({kLarge})};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const double one = dot(x, x);
  at::set_num_threads(3);
  const double three = dot(x, x);
  at::set_num_threads(threads);
  CHECK(one == three);
}

TEST_CASE("lists may mix dtypes", "[tensors]") {
  torch::manual_seed(3);
  const Tensors narrow{at::randn({20}).to(at::kBFloat16)}, wide{at::randn({20}, at::kDouble)};
  CHECK(dot(narrow, wide) == Approx(exact_dot(narrow, wide)));
  auto y = clone(wide);
  add_scaled(y, narrow, 2.0);
  CHECK(at::allclose(y[0], wide[0] + 2.0 * narrow[0].to(at::kDouble)));
  auto copy = zeros_like(narrow);
  copy_values(copy, narrow);
  CHECK(copy[0].scalar_type() == at::kFloat);
  CHECK(at::equal(copy[0], narrow[0].to(at::kFloat)));
}

TEST_CASE("an undefined entry stands for zeros", "[tensors]") {
  const Tensors a{at::ones({2}), at::Tensor(), at::full({3}, 2.0)},
      full{at::ones({2}), at::ones({5}), at::ones({3})};
  CHECK(dot(a, full) == 8.0);
  CHECK(dot(full, a) == 8.0);
  CHECK(norm(a) == Approx(std::sqrt(14.0)));
  CHECK(numel(a) == 5);
  CHECK(all_finite(a));
  CHECK_FALSE(scaled(a, 2.0)[1].defined());
  CHECK_FALSE(clone(a)[1].defined());
  auto twice = clone(a);
  scale(twice, 2.0);
  CHECK(at::equal(twice[2], at::full({3}, 4.0)));
  auto y = clone(full);
  add_scaled(y, a);
  CHECK(at::equal(y[1], full[1]));
  CHECK(at::equal(y[2], at::full({3}, 3.0)));

  const auto w = widened({at::ones({2}, at::kBFloat16), at::Tensor(), at::ones({3}, at::kDouble)},
                         {at::ones({2}), at::ones({4}, at::kHalf), at::ones({3})});
  CHECK(w[0].scalar_type() == at::kFloat);
  CHECK(at::equal(w[1], at::zeros({4})));
  CHECK(w[2].scalar_type() == at::kDouble);
}

TEST_CASE("zeros and widened values are float32 or wider and off the graph", "[tensors]") {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    const auto x = requiring_grad(layouts(dtype));
    const auto zeros = zeros_like(x), same = widened(x, x);
    for (size_t i = 0; i < x.size(); ++i) {
      const auto expected = dtype == at::kDouble ? at::kDouble : at::kFloat;
      CHECK(zeros[i].scalar_type() == expected);
      CHECK(at::equal(zeros[i], at::zeros(x[i].sizes(), expected)));
      CHECK_FALSE(zeros[i].requires_grad());
      CHECK(same[i].scalar_type() == expected);
      CHECK(at::equal(same[i], x[i].detach().to(expected)));
      CHECK_FALSE(same[i].requires_grad());
    }
  }
}

TEST_CASE("one element that is not finite is found wherever it is", "[tensors]") {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const double bad :
         {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
          std::numeric_limits<double>::quiet_NaN()}) {
      torch::manual_seed(4);
      const auto tensors = requiring_grad(layouts(dtype));
      REQUIRE(all_finite(tensors));
      for (const auto& t : tensors) {
        for (const int64_t at : {int64_t{0}, t.numel() / 2, t.numel() - 1}) {
          if (t.numel() == 0) {
            continue;
          }
          const at::NoGradGuard no_grad;
          INFO(toString(dtype) << ' ' << bad << " at " << at << " of " << t.sizes());
          auto element = t.dim() == 2   ? t[at / t.size(1)][at % t.size(1)]
                         : t.dim() == 1 ? t[at]
                                        : t;
          const auto before = element.clone();
          element.fill_(bad);
          CHECK_FALSE(all_finite(tensors));
          element.copy_(before);
        }
      }
    }
  }
  CHECK(all_finite({at::full({4}, std::numeric_limits<float>::max()),
                    at::full({4}, std::numeric_limits<float>::denorm_min())}));
}

TEST_CASE("copying values moves no version counter", "[tensors]") {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto dst = requiring_grad(layouts(at::kFloat));
    const auto src = layouts(dtype);
    std::vector<uint32_t> before;
    for (const auto& t : dst) {
      before.push_back(t._version());
    }
    copy_values(dst, src);
    for (size_t i = 0; i < dst.size(); ++i) {
      CHECK(at::equal(dst[i].detach(), src[i].to(at::kFloat)));
      CHECK(dst[i]._version() == before[i]);
      CHECK(dst[i].is_leaf());
    }
  }
  const Tensors x{at::ones({3})};
  copy_values(x, x);
  CHECK(at::equal(x[0], at::ones({3})));
}

TEST_CASE("lists that do not match are refused before memory is touched", "[tensors][error]") {
  Tensors a{at::ones({2}), at::ones({3})};
  const Tensors shorter{at::ones({2})}, other{at::ones({2}), at::ones({1})};
  CHECK(complaint([&] { dot(a, shorter); }) ==
        "mlo::dot: lists of 2 and 1 tensors; they must be of one length");
  CHECK(complaint([&] { add_scaled(a, shorter); }) ==
        "mlo::add_scaled: lists of 2 and 1 tensors; they must be of one length");
  CHECK(complaint([&] { copy_values(a, shorter); }) ==
        "mlo::copy_values: lists of 2 and 1 tensors; they must be of one length");
  CHECK(complaint([&] { widened(a, shorter); }) ==
        "mlo::widened: lists of 2 and 1 tensors; they must be of one length");
  CHECK(complaint([&] { dot(a, other); }) ==
        "mlo::dot: tensors 1 of the lists have shapes [3] and [1]; they must be the same");
  CHECK(complaint([&] { add_scaled(a, other); }) ==
        "mlo::add_scaled: tensors 1 of the lists have shapes [3] and [1]; they must be the same");
  CHECK(complaint([&] { copy_values(a, other); }) ==
        "mlo::copy_values: tensors 1 of the lists have shapes [3] and [1]; they must be the same");
}
