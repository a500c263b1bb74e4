#include "mlomae/data/divide.h"

#include "mlomae/data/folder.h"
#include "mlomae/message.h"

#include <mlo/data/image_source.h>

#include <algorithm>
#include <numeric>

namespace mlomae {
namespace {

using Images = std::shared_ptr<const mlo::ImageSet>;

class Subset final : public mlo::ImageSet {
 public:
  Subset(Images images, std::vector<int64_t> rows)
      : images_(std::move(images)), rows_(std::move(rows)) {}
  int64_t size() const override { return static_cast<int64_t>(rows_.size()); }
  int64_t channels() const override { return images_->channels(); }
  const std::vector<std::string>& classes() const override { return images_->classes(); }
  int64_t label(int64_t i) const override { return images_->label(row(i)); }
  at::Tensor image(int64_t i) const override { return images_->image(row(i)); }

 private:
  int64_t row(int64_t i) const { return rows_.at(static_cast<std::size_t>(i)); }
  Images images_;
  std::vector<int64_t> rows_;
};

// Classes that have an image in `images` and none among the rows.
std::vector<std::string> missing(const mlo::ImageSet& images, const std::vector<int64_t>& rows) {
  std::vector<bool> there(images.classes().size()), here(images.classes().size());
  for (int64_t i = 0; i < images.size(); ++i)
    there[static_cast<std::size_t>(images.label(i))] = true;
  for (const int64_t row : rows) here[static_cast<std::size_t>(images.label(row))] = true;
  std::vector<std::string> names;
  for (std::size_t c = 0; c < here.size(); ++c)
    if (there[c] && !here[c]) names.push_back(images.classes()[c]);
  return names;
}

mlo::Split split(Dataset& data, double part, const std::string& key, uint64_t seed,
                 const std::string& what, int64_t limited = 0) {
  try {
    mlo::Split parts = mlo::split_by_class(*data.train, part, seed);
    if (const auto names = missing(*data.train, parts.held_out); !names.empty())
      data.notices.push_back(
          message("no {} image of {}: a class with a single image is only trained on ({})", what,
                  some_names(names), key));
    return parts;
  } catch (const mlo::ConfigError&) {
    refuse(
        "{} = {}: {} images, none of whose classes has two, cannot be divided; add images{}, or "
        "set "
        "it to 0 (data.held_out: where no masker is trained)",
        key, part, data.train->size(), limited > 0 ? " (data.limit)" : "");
  }
}

// Leaves these rows of the training images, and their maps.
void take(Dataset& data, std::vector<int64_t> rows) {
  if (data.maps) data.maps = subset(data.maps, rows);
  data.train = subset(data.train, std::move(rows));
}

void keep_test(const Settings::Data& s, Dataset& data) {
  if (data.test && s.test_fraction != Settings::Data().test_fraction)
    data.notices.push_back(
        message("data.test_fraction = {} is not used: the data set has a test part of its own",
                s.test_fraction));
  if (data.test || s.test_fraction == 0.0 || !data.labelled()) return;
  mlo::Split parts = split(data, s.test_fraction, "data.test_fraction",
                           static_cast<uint64_t>(s.split_seed), "test");
  data.notices.push_back(
      message("there is no test part; {} of {} images are kept for it (data.test_fraction)",
              parts.held_out.size(), data.train->size()));
  data.test = subset(data.train, std::move(parts.held_out));
  take(data, std::move(parts.train));
}

void limit(const Settings::Data& s, Dataset& data) {
  if (s.limit == 0 || s.limit >= data.train->size()) return;
  const auto classes = static_cast<int64_t>(data.train->classes().size());
  require(s.limit >= classes,
          "data.limit = {} is less than an image of each of the {} classes; choose more, or 0 for "
          "all",
          s.limit, classes);
  const double left_out =
      1.0 - static_cast<double>(s.limit) / static_cast<double>(data.train->size());
  take(data, mlo::split_by_class(*data.train, left_out, static_cast<uint64_t>(s.split_seed)).train);
}

std::vector<int64_t> all_rows(const mlo::ImageSet& images) {
  std::vector<int64_t> rows(static_cast<std::size_t>(images.size()));
  std::iota(rows.begin(), rows.end(), int64_t{0});
  return rows;
}

std::vector<int64_t> joined(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  std::vector<int64_t> all;
  std::merge(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(all));
  return all;
}

void hold_out(const Settings::Data& s, Dataset& data) {
  // Images are held out to be judged by their labels.
  if (s.held_out > 0.0 && data.labelled()) {
    mlo::Split parts = split(data, s.held_out, "data.held_out",
                             static_cast<uint64_t>(s.split_seed) + 1, "held-out", s.limit);
    data.head = std::move(parts.train);
    data.held_out = std::move(parts.held_out);
  } else {
    data.head = all_rows(*data.train);
  }
  data.pretrain = data.unlabelled          ? all_rows(*data.unlabelled)
                  : s.pretrain_on == "all" ? joined(data.head, data.held_out)
                                           : data.head;
}

}  // namespace

void divide(const Settings::Data& settings, Dataset& data) {
  keep_test(settings, data);
  limit(settings, data);
  hold_out(settings, data);
}

std::shared_ptr<const mlo::ImageSet> subset(std::shared_ptr<const mlo::ImageSet> images,
                                            std::vector<int64_t> rows) {
  return std::make_shared<Subset>(std::move(images), std::move(rows));
}

}  // namespace mlomae
