#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

/// What the picture shows.
struct Report {
  std::string title, subtitle;
  at::Tensor weights;        ///< [n] in 0…1
  at::Tensor flipped;        ///< [n] bool: the given label is wrong
  at::Tensor pixels;         ///< [n, 784] in 0…1
  at::Tensor given, truth;   ///< [n] labels
  const char* const* names;  ///< of the labels
  double clean_mean, flipped_mean;
};

/// A histogram of the weights, clean and flipped in two colours, over strips of the images with the
/// lowest and the highest weights.
void draw_report(const Report& report, const std::filesystem::path& png);
