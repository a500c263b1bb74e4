#include "mlomae/data/folder.h"

#include "mlomae/data/files.h"
#include "mlomae/message.h"

#include <mlo/data/image_file.h>
#include <mlo/data/image_files.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <thread>

namespace mlomae {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRead =
    "JPEG and PNG are read, by the names .jpg, .jpeg, .jpe, .jfif and .png";

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

std::string quoted(const fs::path& path) { return mlomae::quoted(path.string()); }

std::string images(std::size_t count) {
  return message("{} {}", count, count == 1 ? "image" : "images");
}

// f(0) … f(count − 1), some at a time: what takes time is waiting for the disk.
template <class F>
void for_each_file(std::size_t count, F&& f) {
  const std::size_t threads = std::min<std::size_t>(
      {8, count / 64 + 1, std::max(1U, std::thread::hardware_concurrency()) * 2U});
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < count; i = next++) f(i);
  };
  std::vector<std::thread> all;
  for (std::size_t t = 1; t < threads; ++t) all.emplace_back(work);
  work();
  for (std::thread& thread : all) thread.join();
}

struct Listed {
  std::vector<fs::path> files;
  std::vector<int64_t> labels;
  std::vector<std::string> classes;
};

class Reader {
 public:
  Reader(const FolderOptions& options, std::vector<std::string>& notices)
      : options_(options), notices_(notices) {}

  // One folder a class, or images without. `unused`: folders that are no classes.
  FolderImages part(const fs::path& folder) {
    const FolderContent content = content_of(folder);
    std::map<std::string, int64_t> others = content.files.others;
    std::vector<FoundFiles> of_folder;
    std::size_t inside = 0;
    for (const fs::path& f : content.folders) {
      of_folder.push_back(files_beneath(f));
      inside += of_folder.back().images.size();
      for (const auto& [kind, count] : of_folder.back().others) others[kind] += count;
    }
    const std::vector<fs::path>& loose = content.files.images;
    if (inside == 0 && loose.empty()) refuse_empty(folder, others);
    say_passed_over(folder, others);
    if (inside == 0 || (!options_.labels_needed && !loose.empty())) {
      if (inside > 0)
        say("{}: {} beside the folders (the first is {}), so all are taken without labels",
            quoted(folder), images(loose.size()), quoted(loose.front().filename()));
      return read(folder, unlabelled(files_beneath(folder).images));
    }
    if (!loose.empty())
      say("{}: {} beside the class folders, which have no label and are not used; the first is {}",
          quoted(folder), images(loose.size()), quoted(loose.front().filename()));
    return read(folder, labelled(folder, content.folders, of_folder));
  }

  FolderImages unlabelled_part(const fs::path& folder) {
    const FoundFiles found = files_beneath(folder);
    if (found.images.empty()) refuse_empty(folder, found.others);
    say_passed_over(folder, found.others);
    return read(folder, unlabelled(found.images));
  }

 private:
  template <class... Values>
  void say(fmt::format_string<Values...> format, Values&&... values) {
    notices_.push_back(message(format, std::forward<Values>(values)...));
  }

  [[noreturn]] static void refuse_empty(const fs::path& folder,
                                        const std::map<std::string, int64_t>& others) {
    refuse(
        "{} holds no image{}; expected one folder a class with JPEG or PNG files, or such files "
        "alone (methods mae, u-mae, fixed)",
        quoted(folder),
        others.empty() ? "" : message(", but {} ({}; convert them)", counted(others), kRead));
  }

  void say_passed_over(const fs::path& folder, const std::map<std::string, int64_t>& others) {
    if (!others.empty()) say("{}: passed over {} ({})", quoted(folder), counted(others), kRead);
  }

  static Listed unlabelled(std::vector<fs::path> files) {
    Listed listed{.files = std::move(files), .labels = {}, .classes = {"unlabelled"}};
    listed.labels.resize(listed.files.size());
    return listed;
  }

  Listed labelled(const fs::path& folder, const std::vector<fs::path>& folders,
                  std::vector<FoundFiles>& of_folder) {
    Listed listed;
    std::size_t deeper = 0;
    fs::path first_deeper;
    for (std::size_t i = 0; i < folders.size(); ++i) {
      const std::vector<fs::path>& found = of_folder[i].images;
      if (found.empty()) {
        if (options_.labels_needed) refuse_class(folders[i], of_folder[i].others);
        say("{} holds no image and is not used", quoted(folders[i]));
        continue;
      }
      for (const fs::path& file : found) {
        listed.files.push_back(file);
        listed.labels.push_back(static_cast<int64_t>(listed.classes.size()));
        if (file.parent_path() != folders[i] && ++deeper == 1) first_deeper = file;
      }
      listed.classes.push_back(folders[i].filename().string());
    }
    if (deeper > 0)
      say("{}: {} of {} lie in folders inside the class folders and count as of that class; the "
          "first is {}",
          quoted(folder), deeper, images(listed.files.size()),
          quoted(first_deeper.lexically_relative(folder)));
    return listed;
  }

  [[noreturn]] static void refuse_class(const fs::path& folder,
                                        const std::map<std::string, int64_t>& others) {
    refuse(
        "folder {} is a class without a readable JPEG or PNG image: it is empty{}; put some in, or "
        "remove it",
        quoted(folder), others.empty() ? "" : " but for " + counted(others));
  }

  // Looks at each file, and leaves out what is bad.
  FolderImages read(const fs::path& folder, Listed listed) {
    const std::size_t count = listed.files.size();
    std::vector<mlo::ImageSize> sizes(count);
    std::vector<uint64_t> lengths(count);
    std::vector<std::string> wrong(count);
    for_each_file(count, [&](std::size_t i) {
      try {
        std::error_code unknown;
        lengths[i] = fs::file_size(listed.files[i], unknown);
        sizes[i] = mlo::image_size(listed.files[i], options_.channels);
        if (options_.skip_bad) mlo::read_image(listed.files[i], options_.channels);
      } catch (const std::exception& error) {
        wrong[i] = error.what();
      }
    });
    FolderImages result;
    std::vector<int64_t> labels;
    std::vector<std::string> bad;
    std::vector<int64_t> of_class(listed.classes.size());
    for (std::size_t i = 0; i < count; ++i) {
      if (!wrong[i].empty()) {
        bad.push_back(wrong[i]);
        continue;
      }
      result.files.push_back(listed.files[i]);
      result.sizes.push_back(sizes[i]);
      labels.push_back(listed.labels[i]);
      ++of_class[static_cast<std::size_t>(listed.labels[i])];
      result.digest.add(listed.files[i].lexically_relative(folder).string());
      result.digest.add(listed.labels[i]);
      result.digest.add(lengths[i]);
    }
    report_bad(bad);
    for (std::size_t c = 0; c < of_class.size(); ++c)
      require(of_class[c] > 0,
              "class '{}' in {} has no image that can be read; put some in, or remove it",
              listed.classes[c], quoted(folder));
    result.images = mlo::file_images(result.files, std::move(labels), std::move(listed.classes),
                                     options_.channels);
    return result;
  }

  void report_bad(const std::vector<std::string>& bad) {
    constexpr std::size_t kShown = 10;
    if (bad.empty()) return;
    if (!options_.skip_bad)
      refuse<mlo::Error>(
          "{}{}, or leave such images out with data.on_bad_image = skip", bad.front(),
          bad.size() == 1 ? "" : message(" (and so it is with {} more)", bad.size() - 1));
    for (std::size_t i = 0; i < std::min(bad.size(), kShown); ++i) say("left out: {}", bad[i]);
    if (bad.size() > kShown) say("left out: {} more", bad.size() - kShown);
  }

  const FolderOptions options_;
  std::vector<std::string>& notices_;
};

// The folders that have one of the names, in the order of the names.
std::vector<fs::path> called(const std::vector<fs::path>& folders,
                             std::initializer_list<const char*> names) {
  std::vector<fs::path> found;
  for (const char* name : names)
    for (const fs::path& folder : folders)
      if (lower(folder.filename().string()) == name) found.push_back(folder);
  return found;
}

bool has_class_folders(const fs::path& folder) {
  const std::vector<fs::path> inside = content_of(folder).folders;
  return std::any_of(inside.begin(), inside.end(),
                     [](const fs::path& f) { return !files_beneath(f).images.empty(); });
}

}  // namespace

FolderParts read_folder(const fs::path& folder, const FolderOptions& options,
                        std::vector<std::string>& notices) {
  Reader reader(options, notices);
  const FolderContent content = content_of(folder);
  std::vector<fs::path> train = called(content.folders, {"train", "training"}),
                        tests = called(content.folders,
                                       {"test", "testing", "val", "valid", "validation"}),
                        others;
  for (const fs::path& f : content.folders)
    if ((train.empty() || f != train.front()) &&
        std::find(tests.begin(), tests.end(), f) == tests.end())
      others.push_back(f);
  const auto count = [](const fs::path& f) { return files_beneath(f).images.size(); };
  // A folder train/ with images and no folders, beside others with images, is a class: of vehicles,
  // perhaps.
  const bool in_parts =
      !train.empty() &&
      (!content_of(train.front()).folders.empty() ||
       std::none_of(others.begin(), others.end(), [&](const fs::path& f) { return count(f) > 0; }));
  if (!in_parts) return {.train = reader.part(folder), .test = {}};

  FolderParts parts{.train = reader.part(train.front()), .test = {}};
  if (!content.files.images.empty())
    notices.push_back(message("{}: {} beside train/ are not used", quoted(folder),
                              images(content.files.images.size())));
  for (const fs::path& f : others)
    if (const std::size_t unused = count(f); unused > 0)
      notices.push_back(message("{}: {} beside train/ are not used", quoted(f), images(unused)));
  std::string taken;
  for (const fs::path& f : tests) {
    const std::string name = f.filename().string();
    if (!taken.empty()) {
      if (const std::size_t unused = count(f); unused > 0)
        notices.push_back(message("{}: {} are not used, because {}/ is the test part", quoted(f),
                                  images(unused), taken));
    } else if (parts.train.images->classes().size() > 1 && has_class_folders(f)) {
      parts.test = reader.part(f);
      taken = name;
      if (!lower(name).starts_with("test"))
        notices.push_back(message("{} is the test part, because there is no test/", quoted(f)));
    } else if (const std::size_t unused = count(f); unused > 0) {
      notices.push_back(
          message("{}: {} without class folders are not used", quoted(f), images(unused)));
    }
  }
  return parts;
}

FolderImages read_unlabelled(const fs::path& folder, const FolderOptions& options,
                             std::vector<std::string>& notices) {
  return Reader(options, notices).unlabelled_part(folder);
}

std::string some_names(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 5;
  if (names.size() <= kShown) return listed(names);
  return message("{} and {} more", listed({names.begin(), names.begin() + kShown}),
                 names.size() - kShown);
}

}  // namespace mlomae
