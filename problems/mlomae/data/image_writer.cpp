#include "mlomae/data/image_writer.h"

#include "mlomae/message.h"

#include <ATen/ATen.h>
#include <mlo/data/image_file.h>
#include <mlo/io/file_sink.h>

#include <cerrno>
#include <fstream>
#include <initializer_list>
#include <system_error>

namespace mlomae {
namespace {

namespace fs = std::filesystem;

// An IDX file of bytes: what it holds, its sizes (big-endian), the bytes.
class IdxFile {
 public:
  IdxFile(const fs::path& file, std::initializer_list<int64_t> sizes)
      : sink_(mlo::atomic_file(file)) {
    std::vector<uint8_t> head = {0, 0, 0x08, static_cast<uint8_t>(sizes.size())};
    for (const int64_t size : sizes)
      for (int shift = 24; shift >= 0; shift -= 8)
        head.push_back(static_cast<uint8_t>(size >> shift & 255));
    sink_->write(head.data(), head.size());
  }
  void add(const at::Tensor& bytes) {
    sink_->write(bytes.contiguous().const_data_ptr(), static_cast<std::size_t>(bytes.numel()));
  }
  void add(uint8_t byte) { sink_->write(&byte, 1); }
  void close() { sink_->commit(); }

 private:
  std::unique_ptr<mlo::FileSink> sink_;
};

class IdxWriter final : public ImageWriter {
 public:
  IdxWriter(const fs::path& folder, const std::string& part, int64_t count, int64_t side)
      : images_(folder / (part + "-images-idx3-ubyte"), {count, side, side}),
        labels_(folder / (part + "-labels-idx1-ubyte"), {count}),
        maps_(folder / (part + "-maps-idx3-ubyte"), {count, side, side}) {}
  void add(const at::Tensor& image, const at::Tensor& map, int64_t label,
           int64_t /*row*/) override {
    images_.add(image);
    labels_.add(static_cast<uint8_t>(label));
    maps_.add(map);
  }
  void close() override { images_.close(), labels_.close(), maps_.close(); }

 private:
  IdxFile images_, labels_, maps_;
};

// Not by mlo::write_png, which waits for the disk at each file.
void write_png(const fs::path& file, const at::Tensor& image) {
  const std::vector<uint8_t> bytes = mlo::encode_png(image);
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  out.close();
  require<mlo::Error>(!out.fail(),
                      "{}: cannot be written: {}; make room on the disk, or write elsewhere",
                      file.string(), std::generic_category().message(errno));
}

class FolderWriter final : public ImageWriter {
 public:
  FolderWriter(const fs::path& folder, const std::string& part,
               const std::vector<std::string>& classes) {
    for (const std::string& name : classes) {
      require(fs::path(name).filename() == name && !name.starts_with("."),
              "the class '{}' cannot be the name of a folder; call it otherwise", name);
      images_.push_back(folder / "images" / part / name);
      maps_.push_back(folder / "maps" / part / name);
    }
  }
  void add(const at::Tensor& image, const at::Tensor& map, int64_t label, int64_t row) override {
    const auto c = static_cast<std::size_t>(label);
    const std::string name = message("{:06}.png", row);
    // A class without an image has no folder: in the test part that is no error.
    fs::create_directories(images_[c]);
    fs::create_directories(maps_[c]);
    write_png(images_[c] / name, image);
    write_png(maps_[c] / name, map);
  }
  void close() override {}

 private:
  std::vector<fs::path> images_, maps_;  // by label
};

}  // namespace

std::unique_ptr<ImageWriter> idx_writer(const fs::path& folder, const std::string& part,
                                        int64_t count, int64_t side) {
  return std::make_unique<IdxWriter>(folder, part, count, side);
}

std::unique_ptr<ImageWriter> folder_writer(const fs::path& folder, const std::string& part,
                                           std::vector<std::string> classes) {
  return std::make_unique<FolderWriter>(folder, part, classes);
}

}  // namespace mlomae
