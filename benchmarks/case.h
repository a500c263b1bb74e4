#pragma once

#include <mlo/engine.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace bench {

/// One way of doing a case's work: `steps(n)` takes n outer steps and is timed.
struct Contestant {
  std::string method;  ///< "darts", "one_step", … ; by hand: "darts by hand", …
  std::function<void(int64_t)> steps;
  std::function<mlo::Counters()>
      counters;  ///< summed over the levels, of all steps so far; null by hand
  double flop =
      0.0;  ///< floating point operations of the matrix products of an outer step; 0: not counted
};

struct Case {
  std::string name;
  std::string what;          ///< one line for `list`
  int64_t steps_per_repeat;  ///< outer steps timed together
  /// All of them, or the one of that name if it is not empty: the others' memory would count in its
  /// peak.
  std::function<std::vector<Contestant>(const std::string& only)> contestants;
};

/// Sum over an engine's levels.
mlo::Counters total_counters(const mlo::Engine& engine);

/// A contestant that is an engine: keeps it alive.
Contestant engine_contestant(std::string method, std::shared_ptr<mlo::Engine> engine);

Case logistic_case();
Case cnn_case();
/// Shapes of the MLO-MAE step; the defaults are those of the figures in docs/mlomae.md.
struct MlomaeShape {
  int64_t image = 32, patch = 4, dim = 192, depth = 6, heads = 3, decoder_dim = 128,
          decoder_depth = 2, decoder_heads = 4, batch = 64, unroll = 2;
  bool small = false;
};
Case mlomae_case(const MlomaeShape& shape);
/// Images a second through the sources of mlo/data.
Case images_case();
/// 2^layers paths.
Case paths_case(int64_t layers);

/// Of lists of tensors taken as one vector; undefined ones are zero.
double dot(const mlo::Tensors& a, const mlo::Tensors& b);
double cosine(const mlo::Tensors& a, const mlo::Tensors& b);

/// How far methods are from the exact derivative of the steps taken, at the start and after some
/// steps of MLO-MAE.
void print_accuracy();
/// How much of MLO-MAE's hypergradient is signal, under settings of mlomae (`micro` and the
/// assignments), after a tenth, three tenths and all of so many steps of the masker: the mean
/// cosine between those of 16 independent batches; with data.maps, also whether a step against it
/// lets the objects count more: its cosine to that direction, and of a batch the mean over the
/// deviation of what it does to it.
void print_signal(const std::string& data, const std::vector<std::string>& assignments,
                  int64_t steps);

}  // namespace bench
