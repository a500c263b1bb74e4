#include "mlomae/data/make_data.h"

#include "mlomae/config/json_text.h"
#include "mlomae/data/dataset.h"
#include "mlomae/data/digest.h"
#include "mlomae/data/grounds.h"
#include "mlomae/data/image_writer.h"
#include "mlomae/data/open_parts.h"
#include "mlomae/message.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <mlo/data/augment.h>
#include <mlo/io/file_sink.h>
#include <torch/types.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <memory>

namespace mlomae {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kBackground = 16;  // below it is what was black, and has been resized beside the rest

// Threads may change the order of sums.
class OneThread {
 public:
  OneThread() : before_(at::get_num_threads()) { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

// The folder until it is whole.
class Unfinished {
 public:
  explicit Unfinished(const fs::path& out) : out_(fs::weakly_canonical(out)) {
    if (!out_.has_filename()) out_ = out_.parent_path();  // of "sets/"
    require(
        out_ != fs::current_path(),
        "--out = {}; it must not be the working folder, which would be replaced: give one in it",
        out.string());
    part_ = out_;
    part_ += ".part";
    require(fs::create_directories(part_),
            "{} is there: another call is making this set, or one was cut off; then remove it",
            part_.string());
  }
  ~Unfinished() {
    std::error_code ignored;
    fs::remove_all(part_, ignored);
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;
  const fs::path& path() const { return part_; }
  void finish() { fs::rename(part_, out_); }

 private:
  fs::path out_, part_;
};

struct Part {
  std::string name, idx_name;  // train, train; test, t10k
  std::shared_ptr<const mlo::ImageSet> objects;
  std::vector<int64_t> rows;
  Ground ground;
};

Draws draws_of(const ObjectOnGround& asked, const std::string& part, int64_t row) {
  Digest key;
  key.add(asked.seed);
  key.add(part);
  key.add(row);
  return Draws(key.value());
}

// `count` rows: the first of each class in a random order, then the second ones, …
std::vector<int64_t> chosen(const mlo::ImageSet& objects, int64_t count, Draws draws) {
  std::vector<std::vector<int64_t>> of_class(objects.classes().size());
  for (int64_t i = 0; i < objects.size(); ++i)
    of_class[static_cast<std::size_t>(objects.label(i))].push_back(i);
  for (std::vector<int64_t>& rows : of_class)
    for (std::size_t i = rows.size(); i > 1; --i)
      std::swap(rows[i - 1], rows[static_cast<std::size_t>(draws.below(static_cast<int64_t>(i)))]);
  std::vector<int64_t> taken;
  for (std::size_t turn = 0; static_cast<int64_t>(taken.size()) < count; ++turn)
    for (const std::vector<int64_t>& rows : of_class)
      if (turn < rows.size() && static_cast<int64_t>(taken.size()) < count)
        taken.push_back(rows[turn]);
  std::sort(taken.begin(), taken.end());
  return taken;
}

Part part_of(const ObjectOnGround& asked, const Dataset& data, bool train) {
  Part part;
  part.name = train ? "train" : "test";
  part.idx_name = train ? "train" : "t10k";
  part.objects = train ? data.train : data.test;
  const int64_t given = train ? asked.train : asked.test, there = part.objects->size();
  require(given <= there, "--{} = {}; it must be no more than the {} objects of that part",
          part.name, given, there);
  const auto classes = static_cast<int64_t>(data.train->classes().size());
  require(given == 0 || given >= classes,
          "--{} = {}; it must be at least {}, an image of each class, or 0 for all", part.name,
          given, classes);
  part.rows =
      chosen(*part.objects, given == 0 ? there : given, draws_of(asked, part.name, int64_t{-1}));
  return part;
}

Dataset objects_of(const ObjectOnGround& asked) {
  Settings settings;
  settings.data.path = asked.objects.string();
  settings.run.method = "mae";  // takes every set; what is missing here is said here
  Dataset data;
  open_parts(settings, data);
  require(data.labelled(),
          "--objects = {}; it must be a set with labels, two classes or more: CIFAR, IDX, or "
          "train/CLASS/ and test/CLASS/ with images in them",
          asked.objects.string());
  require(data.test != nullptr,
          "--objects = {}; it must have a test part too, or training objects would be tested on: "
          "put some images of each class into {}",
          asked.objects.string(), (asked.objects / "test").string());
  return data;
}

// The square in the middle.
at::Tensor resized(const at::Tensor& image, int64_t side) {
  const int64_t shorter = std::min(image.size(1), image.size(2));
  return mlo::resize_bicubic(image.narrow(1, (image.size(1) - shorter) / 2, shorter)
                                 .narrow(2, (image.size(2) - shorter) / 2, shorter)
                                 .contiguous(),
                             side, side);
}

// Of so many objects, evenly, as are soon resized and held.
Ground clutter_of(const mlo::ImageSet& objects, const ObjectOnGround& asked) {
  const int64_t count = std::min<int64_t>(objects.size(), 4096);
  std::vector<at::Tensor> held;
  for (int64_t i = 0; i < count; ++i)
    held.push_back(resized(objects.image(i * objects.size() / count), asked.object));
  return clutter_ground(std::move(held), asked.size);
}

Ground ground_of(const ObjectOnGround& asked, const Part& part) {
  const int64_t channels = part.objects->channels();
  if (asked.ground == "noise") return noise_ground(channels, asked.size);
  if (asked.ground == "stripes") return stripes_ground(channels, asked.size);
  if (asked.ground == "clutter") return clutter_of(*part.objects, asked);
  return photograph_ground(
      read_photographs(asked.photographs, part.name == "train", channels, asked.size), asked.size);
}

struct Made {
  at::Tensor image, map;
};

// The place is drawn first: it is the same on every ground.
Made made(const ObjectOnGround& asked, const Part& part, int64_t row) {
  Draws draws = draws_of(asked, part.name, row);
  const int64_t top = draws.below(asked.size - asked.object + 1),
                left = draws.below(asked.size - asked.object + 1);
  const auto place = [&](const at::Tensor& whole) {
    return whole.narrow(1, top, asked.object).narrow(2, left, asked.object);
  };
  const at::Tensor object = resized(part.objects->image(row), asked.object);
  const at::Tensor pasted = asked.cut == "box"
                                ? torch::ones({1, asked.object, asked.object}, at::kBool)
                                : object.amax(at::IntArrayRef{0}, /*keepdim=*/true).ge(kBackground);
  require(pasted.any().item<bool>(),
          "object {} of the {} part is black, so that nothing of its shape is left; take --cut box",
          row, part.name);
  Made m{part.ground(draws), torch::zeros({1, asked.size, asked.size}, at::kByte)};
  place(m.image).copy_(at::where(pasted, object, place(m.image)));
  place(m.map).masked_fill_(pasted, 255);
  return m;
}

void add(Digest& digest, const at::Tensor& bytes) {
  digest.add(std::string_view(static_cast<const char*>(bytes.const_data_ptr()),
                              static_cast<std::size_t>(bytes.numel())));
}

void write_text(const fs::path& file, const std::string& text) {
  const auto sink = mlo::atomic_file(file);
  sink->write(text.data(), text.size());
  sink->commit();
}

bool is_empty_folder(const fs::path& path) {
  std::error_code unknown;
  return fs::is_directory(path, unknown) && fs::is_empty(path, unknown) && !unknown;
}

}  // namespace

const std::vector<std::string>& grounds() {
  static const std::vector<std::string> names = {"noise", "stripes", "clutter", "photographs"};
  return names;
}

void ObjectOnGround::validate() const {
  std::error_code unknown;
  require(std::count(mlomae::grounds().begin(), mlomae::grounds().end(), ground) == 1,
          "--ground = {}; it must be one of {}", abridged(ground), listed(mlomae::grounds()));
  require(cut == "box" || cut == "shape", "--cut = {}; it must be box or shape", abridged(cut));
  require(size >= 4 && size <= 1024, "--size = {}; it must be from 4 to 1024 pixels", size);
  require(object >= 4 && object <= size,
          "--object = {}; it must be from 4 pixels to the image's {} (--size)", object, size);
  require(train >= 0 && test >= 0 && seed >= 0,
          "--train = {}, --test = {}, --seed = {}; they must not be negative", train, test, seed);
  require(ground != "photographs" || !photographs.empty(),
          "--ground = photographs: of which? Give --photographs FOLDER");
  require(
      ground == "photographs" || photographs.empty(),
      "--photographs = {} is for --ground photographs, and --ground = {}; leave out one of them",
      photographs.string(), ground);
  for (const auto& [name, folder] : {std::pair{"objects", objects}, {"photographs", photographs}})
    require(folder.empty() ? std::string(name) != "objects" : fs::is_directory(folder, unknown),
            "--{} = {}; it must be a folder that is there", name, folder.string());
  require(!out.empty() && (!fs::exists(fs::symlink_status(out, unknown)) || is_empty_folder(out)),
          "--out = {}; it must be a folder that is not there yet, or empty: give another, or "
          "remove it",
          out.string());
}

Json make_data(const ObjectOnGround& asked, const Json& versions,
               const std::function<void(int64_t, int64_t)>& progress) {
  asked.validate();
  const OneThread one;
  const Dataset data = objects_of(asked);
  const bool grey = data.train->channels() == 1;
  std::vector<Part> parts = {part_of(asked, data, true), part_of(asked, data, false)};
  for (Part& part : parts) part.ground = ground_of(asked, part);
  Unfinished folder(asked.out);
  Digest digest;
  int64_t done = 0;
  const auto total = static_cast<int64_t>(parts[0].rows.size() + parts[1].rows.size());
  for (const Part& part : parts) {
    const auto writer = grey ? idx_writer(folder.path(), part.idx_name,
                                          static_cast<int64_t>(part.rows.size()), asked.size)
                             : folder_writer(folder.path(), part.name, data.train->classes());
    for (const int64_t row : part.rows) {
      const Made m = made(asked, part, row);
      const int64_t label = part.objects->label(row);
      writer->add(m.image, m.map, label, row);
      add(digest, m.image), digest.add(label), add(digest, m.map);
      if (++done; progress && (done % 100 == 0 || done == total)) progress(done, total);
    }
    writer->close();
  }
  const auto whole = [](const fs::path& path) {
    return path.empty() ? "" : fs::absolute(path).lexically_normal().string();
  };
  Json record = {{"objects", whole(asked.objects)},
                 {"ground", asked.ground},
                 {"photographs", whole(asked.photographs)},
                 {"size", asked.size},
                 {"object", asked.object},
                 {"train", parts[0].rows.size()},
                 {"test", parts[1].rows.size()},
                 {"cut", asked.cut},
                 {"seed", asked.seed},
                 {"layout", grey ? "idx" : "folders"},
                 {"class_names", data.train->classes()},
                 {"notices", data.notices},
                 {"digest", digest.hex()},
                 {"versions", versions}};
  write_text(folder.path() / "make-data.json", json_text(record, 2) + "\n");
  folder.finish();
  return record;
}

}  // namespace mlomae
