#include "precompiled.h"

#include "hypergradient/product_inputs.h"
#include "mlo/error.h"
#include "mlo/hypergradient/oracle.h"
#include "tensors/elementwise.h"
#include "text.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace mlo {
namespace {

using Radius = FiniteDifferenceOptions::Radius;

bool all_double(const Tensors& tensors) {
  return std::all_of(tensors.begin(), tensors.end(),
                     [](const auto& tensor) { return tensor.scalar_type() == at::kDouble; });
}

/// What the entries of each tensor are compared with.
struct Sizes {
  std::vector<double> of;  // a tensor's root mean square, and no less than a tenth of the level's
  std::vector<char> doubtful;  // that tenth stands for it, and is no small number

  explicit Sizes(const Tensors& theta) {
    double squares = 0.0;
    for (const auto& tensor : theta) {
      const double square = dot({tensor}, {tensor});
      squares += square;
      of.push_back(std::sqrt(square / static_cast<double>(std::max<int64_t>(tensor.numel(), 1))));
    }
    const double floor =
        0.1 * std::sqrt(squares / static_cast<double>(std::max<int64_t>(numel(theta), 1)));
    for (double& size : of) {
      doubtful.push_back(size < floor && floor > 1.0 ? 1 : 0);
      size = std::max(size, floor);
      if (size == 0.0)
        size = 1.0;  // all parameters zero: there is no scale to be relative to; one unit a
                     // coordinate serves
    }
  }
};

int64_t nonzeros(const at::Tensor& v) {
  int64_t count = 0;
  const bool done = detail::plain(v) && detail::with_type(v.scalar_type(), [&]<class T>(T) {
                      const T* x = v.const_data_ptr<T>();
                      for (int64_t i = 0; i < v.numel(); ++i) count += x[i] != T(0) ? 1 : 0;
                    });
  return done ? count : at::count_nonzero(v).item<int64_t>();
}

/// How often each power of two occurs among the entries |v|/size.
struct Magnitudes {
  static constexpr int kPowers = 512;
  std::array<int64_t, kPowers> counts = {};
  int64_t nonzero = 0;

  void add(const at::Tensor& v, double size) {
    const double factor = 1.0 / size;
    const bool done =
        detail::plain(v) && detail::with_type(v.scalar_type(), [&]<class T>(T) {
          const T* x = v.const_data_ptr<T>();
          for (int64_t i = 0; i < v.numel(); ++i) {
            const double magnitude = std::abs(static_cast<double>(x[i]) * factor);
            if (magnitude > 0.0)
              count(static_cast<int>(std::bit_cast<uint64_t>(magnitude) >> 52) - 1023, 1);
          }
        });
    if (done) return;
    const at::Tensor powers = v.abs().mul(factor).log2().floor();
    const at::Tensor histogram =
        at::histc(powers.to(at::kFloat), kPowers, -kPowers / 2, kPowers / 2).cpu().to(at::kLong);
    for (int i = 0; i < kPowers; ++i)
      count(i - kPowers / 2, histogram.const_data_ptr<int64_t>()[i]);
  }

 private:
  void count(int power, int64_t times) {
    counts[static_cast<std::size_t>(std::clamp(power + kPowers / 2, 0, kPowers - 1))] += times;
    nonzero += times;
  }
};

/// Entries of v that share a radius.
struct Part {
  Tensors v;
  double epsilon = 0.0;
  bool doubtful =
      false;  // the difference is not to be trusted unless another radius gives the same
};

// Those of size·upper > |v| ≥ size·lower, and zeros.
Tensors between(const Tensors& v, const Sizes& sizes, double lower, double upper) {
  Tensors result;
  for (std::size_t i = 0; i < v.size(); ++i) {
    const at::Tensor magnitude = v[i].abs();
    result.push_back(
        at::where((magnitude >= lower * sizes.of[i]).logical_and_(magnitude < upper * sizes.of[i]),
                  v[i], at::zeros({}, v[i].options())));
  }
  return result;
}

/// v cut into parts that one difference each can serve. With one radius for all, an entry that is
/// 10⁴ times as large as another, relative to its parameter, leaves that one a move of which
/// float32 keeps no more than two bits.
class Parts {
 public:
  /// `idle`: some of v belongs to parameters that the step's gradient did not depend on (see
  /// idle()).
  Parts(double c, const Tensors& theta, const Tensors& v, bool idle) : c_(c), sizes_(theta) {
    Tensors rest = v;
    if (std::any_of(sizes_.doubtful.begin(), sizes_.doubtful.end(),
                    [](char doubtful) { return doubtful != 0; })) {
      Tensors apart = v;
      for (std::size_t i = 0; i < v.size(); ++i) {
        auto& zero = sizes_.doubtful[i] ? rest[i] : apart[i];
        zero = at::zeros_like(zero);
      }
      add(std::move(apart), /*doubtful=*/true);
    }
    if (idle)
      add_by_magnitude(std::move(rest));
    else
      add(std::move(rest), /*doubtful=*/false);
  }

  std::vector<Part> take() { return std::move(parts_); }

 private:
  void add(Tensors v, bool doubtful) {
    const double move = largest_move(v);
    add(std::move(v), move, doubtful);
  }

  void add(Tensors v, double move, bool doubtful) {
    if (move != 0.0) parts_.push_back({std::move(v), c_ / move, doubtful});
  }

  // Root mean square of the entries that move, relative to their parameters: the largest over the
  // tensors.
  double largest_move(const Tensors& v) const {
    double largest = 0.0;
    for (std::size_t i = 0; i < v.size(); ++i) {
      const double size = norm({v[i]});
      if (size == 0.0) continue;
      if (!std::isfinite(size)) return size;
      largest =
          std::max(largest, size / (sizes_.of[i] * std::sqrt(static_cast<double>(nonzeros(v[i])))));
    }
    return largest;
  }

  void add_by_magnitude(Tensors v) {
    constexpr int kTwoDecades = 7, kFourDecades = 13;  // as powers of two
    const double move = largest_move(v);
    Magnitudes all;
    for (std::size_t i = 0; i < v.size() && std::isfinite(move); ++i) all.add(v[i], sizes_.of[i]);
    const auto& counts = all.counts;
    // One entry in a hundred may be as small as it likes.
    int bottom = 0, top = Magnitudes::kPowers - 1;
    for (int64_t below = 0; bottom < top; ++bottom) {
      below += counts[static_cast<std::size_t>(bottom)];
      if (100 * below > all.nonzero) break;
    }
    while (top > bottom && counts[static_cast<std::size_t>(top)] == 0) --top;
    if (top - bottom <= kFourDecades) {
      add(std::move(v), move, /*doubtful=*/false);
      return;
    }
    // Of so unlike entries a part's share is unlike its size, too, and a kink within the radius,
    // times a large entry, may be all of it.
    double upper = std::numeric_limits<double>::infinity();
    while (top >= bottom) {
      const int low = top - kTwoDecades + 1;
      const double lower = low <= bottom ? 0.0 : std::ldexp(1.0, low - Magnitudes::kPowers / 2);
      add(between(v, sizes_, lower, upper), /*doubtful=*/true);
      upper = lower;
      top = low - 1;
      while (top >= bottom && counts[static_cast<std::size_t>(top)] == 0) --top;
    }
  }

  const double c_;
  const Sizes sizes_;
  std::vector<Part> parts_;
};

// Whether v moves parameters whose gradient was exactly zero: dead units, unused rows. An adaptive
// optimizer's scale is 10⁴ to 10⁶ times as large there, and the product is not, so they alone would
// set a radius that drowns the rest. Elsewhere large entries make a large product, beside which
// what small ones lose is small.
bool idle(const Tensors& gradient, const Tensors& v) {
  for (std::size_t i = 0; i < v.size() && i < gradient.size(); ++i) {
    if (!gradient[i].defined()) continue;
    bool some = false;
    const bool done = detail::alike(gradient[i], v[i]) &&
                      gradient[i].scalar_type() == v[i].scalar_type() &&
                      detail::with_type(v[i].scalar_type(), [&]<class T>(T) {
                        const T *g = gradient[i].const_data_ptr<T>(), *x = v[i].const_data_ptr<T>();
                        for (int64_t k = 0; k < v[i].numel(); ++k)
                          some = some || (g[k] == T(0) && x[k] != T(0));
                      });
    if (!done) some = gradient[i].eq(0).logical_and_(v[i].ne(0)).any().item<bool>();
    if (some) return true;
  }
  return false;
}

std::vector<Part> parts_of(const FiniteDifferenceOptions& options, Probe& probe,
                           const Tensors& inputs, const Tensors& v) {
  const at::NoGradGuard no_grad;
  std::vector<Part> parts;
  if (options.radius == Radius::norm) {
    if (const double size = norm(v); size != 0.0)
      parts.push_back({v, (options.constant > 0.0 ? options.constant : 0.01) / size});
  } else {
    probe.shift(0.0, v);  // the radius is relative to the recorded values
    // The narrowest type decides how near two gradients may be: those of float32 parameters are
    // rounded to float32.
    const bool wide = all_double(probe.parameters()) && all_double(inputs);
    parts = Parts(options.constant > 0.0 ? options.constant : (wide ? 1e-5 : 3e-3),
                  probe.parameters(), v, idle(probe.record().gradient, v))
                .take();
  }
  for (const auto& part : parts)
    if (!(part.epsilon > 0.0))
      refuse<NonFiniteError>(
          "level {}: what its finite differences are to be multiplied with is not finite: the "
          "adjoint, or the scale of the optimizer's step; look for a square root, logarithm or "
          "division at zero",
          quoted(probe.level_name()));
  return parts;
}

struct Difference {
  Tensors value;  // D(ε) = [∇L(θ+εv) − ∇L(θ−εv)] / 2ε with respect to the inputs
  double rounding = 0.0;  // what rounding of the two gradients may have added to its norm
  double error = 0.0;     // an estimate of its whole error
};

Difference copy(const Difference& difference) {
  return {clone(difference.value), difference.rounding, difference.error};
}

Difference central_difference(Probe& probe, const Tensors& inputs, const Tensors& v,
                              double epsilon) {
  probe.shift(epsilon, v);
  const Tensors plus = probe.gradient(inputs);
  probe.shift(-epsilon, v);
  const Tensors minus = probe.gradient(inputs);
  const at::NoGradGuard no_grad;
  Difference difference{Tensors(inputs.size())};
  double square = 0.0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!plus[i].defined() && !minus[i].defined()) continue;
    const at::Tensor& either = plus[i].defined() ? plus[i] : minus[i];
    // What autograd returned may share memory with other gradients.
    difference.value[i] = plus[i].defined() && minus[i].defined()
                              ? (plus[i] - minus[i]).div_(2.0 * epsilon)
                              : either / (plus[i].defined() ? 2.0 * epsilon : -2.0 * epsilon);
    const double unit = either.scalar_type() == at::kDouble ? 0x1p-53 : 0x1p-24;
    square += unit * unit * dot({either}, {either});
  }
  difference.rounding = difference.error =
      norm(difference.value) > 0.0 ? std::sqrt(square) / epsilon : 0.0;
  return difference;
}

Tensors gap(const Tensors& a, const Tensors& b, const Tensors& inputs) {
  Tensors result = clone(widened(a, inputs));
  add_scaled(result, widened(b, inputs), -1.0);
  return result;
}

// The difference at a radius that another bears out. Where rounding is a large part of it a larger
// one is tried, as long as that gives the same to rounding; else smaller ones, until two agree.
Difference settled_difference(Probe& probe, const Tensors& inputs, const Part& part,
                              Difference here) {
  constexpr double kStep = 10.0;
  double epsilon = part.epsilon;
  bool grown = false;
  for (int i = 0; i < 2 && here.rounding > 3e-3 * norm(here.value); ++i) {
    Difference next = central_difference(probe, inputs, part.v, epsilon *= kStep);
    const double apart = norm(gap(here.value, next.value, inputs));
    if (apart > 3.0 * here.rounding) break;
    here = std::move(next);
    grown = true;
  }
  epsilon = part.epsilon;
  for (int i = 0; i < 5 && !grown && norm(here.value) > 0.0; ++i) {
    Difference next = central_difference(probe, inputs, part.v, epsilon /= kStep);
    const double apart = norm(gap(here.value, next.value, inputs));
    // Truncation falls with the square of the radius, rounding grows.
    here.error = apart;
    next.error = next.rounding + apart / (kStep * kStep);
    const double size = norm(next.value);
    const bool agree = apart <= 1e-3 * size + 3.0 * next.rounding;
    if (next.error < here.error || size == 0.0) here = std::move(next);
    if (agree) break;
  }
  return here;
}

void refuse_narrow(const Probe& probe) {
  for (const auto& parameter : probe.parameters())
    if (parameter.element_size() < 4)
      refuse<UnsupportedError>(
          "level {}: finite differences of parameters in {} are rounding noise; keep the "
          "parameters in float32 and compute in autocast, or use mlo::one_step()",
          quoted(probe.level_name()), c10::toString(parameter.scalar_type()));
}

class DifferenceLinearization final : public Linearization {
 public:
  DifferenceLinearization(Probe& probe, const Tensors& targets,
                          const FiniteDifferenceOptions& options)
      : probe_(probe), targets_(targets), options_(options) {}

  Tensors product(const Tensors& v, Wrt wrt, bool /*last*/) override {
    const Tensors inputs = product_inputs(probe_, targets_, v, wrt);
    if (inputs.empty()) return {};
    Tensors sum(inputs.size());
    double squares = 0.0;
    for (const Part& part : parts_of(options_, probe_, inputs, v)) {
      Difference difference = central_difference(probe_, inputs, part.v, part.epsilon);
      if (part.doubtful)
        difference = settled_difference(probe_, inputs, part, std::move(difference));
      else if (looked_into())
        difference.error = std::max(
            difference.error,
            norm(gap(difference.value,
                     settled_difference(probe_, inputs, part, copy(difference)).value, inputs)));
      squares += difference.error * difference.error;
      for (std::size_t i = 0; i < sum.size(); ++i) {
        if (!difference.value[i].defined()) continue;
        if (sum[i].defined())
          sum[i].add_(difference.value[i]);
        else
          sum[i] = std::move(difference.value[i]);
      }
    }
    if (const double size = norm(sum); size > 0.0)
      error_ = std::max(error_, std::sqrt(squares) / size);
    return sum;
  }

  double error() const override { return error_; }

 private:
  // Kinks (ReLU, max) within the radius may be all of a difference, and show at another radius
  // only. Always to look there would double the cost; at visits 2, 4, 8, … it costs nothing in the
  // long run, and the warning comes early.
  bool looked_into() const {
    return probe_.visits() > 1 && std::has_single_bit(static_cast<uint64_t>(probe_.visits()));
  }

  Probe& probe_;
  const Tensors& targets_;
  const FiniteDifferenceOptions options_;
  double error_ = 0.0;
};

class DifferenceOracle final : public Oracle {
 public:
  explicit DifferenceOracle(FiniteDifferenceOptions options) : options_(options) {
    options_.validate();
  }
  std::string name() const override { return "finite difference"; }
  Needs needs() const override { return {.differences = true}; }
  std::unique_ptr<Linearization> linearize(Probe& probe, const Tensors& targets) const override {
    refuse_narrow(probe);
    return std::make_unique<DifferenceLinearization>(probe, targets, options_);
  }

 private:
  FiniteDifferenceOptions options_;
};

}  // namespace

void FiniteDifferenceOptions::validate() const {
  require(std::isfinite(constant) && constant >= 0.0,
          "FiniteDifferenceOptions::constant = {}; it must be positive and finite, or 0 for the "
          "default of the dtype",
          constant);
}

std::unique_ptr<Oracle> finite_difference_oracle(FiniteDifferenceOptions options) {
  return std::make_unique<DifferenceOracle>(options);
}

double finite_difference_error(Probe& probe, const Tensors& targets, const Tensors& v,
                               FiniteDifferenceOptions options) {
  options.validate();
  refuse_narrow(probe);
  double squares = 0.0;
  for (const Part& part : parts_of(options, probe, targets, v)) {
    const Difference fine = central_difference(probe, targets, part.v, part.epsilon);
    const Difference coarse = central_difference(probe, targets, part.v, 2.0 * part.epsilon);
    const double error = norm(gap(coarse.value, fine.value, targets)) / 3.0;
    squares += error * error;
  }
  probe.shift(0.0, v);
  return std::sqrt(squares);
}

}  // namespace mlo
