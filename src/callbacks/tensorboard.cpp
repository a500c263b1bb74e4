#include "mlo/callbacks/tensorboard.h"

#include "mlo/engine.h"
#include "mlo/io/event_file.h"
#include "text.h"

namespace mlo {
namespace {

class TensorBoard final : public Callback {
 public:
  TensorBoard(std::filesystem::path folder, int64_t every)
      : folder_(std::move(folder)), every_(every) {
    require(every >= 1, "tensorboard: every = {}; it must be at least 1", every);
  }

  void on_start(const Engine& engine) override {
    writer_ = std::make_unique<EventWriter>(folder_, engine.steps_taken() + 1);
  }

  void on_step(const StepReport& report) override {
    if (report.step % every_ != 0 && report.step != report.steps) return;
    std::vector<std::pair<std::string, double>> values;
    for (const auto& [level, loss] : report.losses()) values.emplace_back("loss/" + level, loss);
    for (const auto& [name, value] : report.metrics()) values.emplace_back(tag(name), value);
    writer_->scalars(report.step, values);
  }

  void on_validation(const Engine& /*engine*/, const ValidationReport& report) override {
    std::vector<std::pair<std::string, double>> values;
    for (const auto& [name, value] : report.metrics)
      values.emplace_back("validation/" + tag(name), value);
    writer_->scalars(report.step, values);
  }

 private:
  // "level.metric" → "level/metric": TensorBoard groups by what stands before the slash.
  static std::string tag(std::string name) {
    if (const std::size_t dot = name.find('.'); dot != std::string::npos) name[dot] = '/';
    return name;
  }

  std::filesystem::path folder_;
  int64_t every_;
  std::unique_ptr<EventWriter> writer_;
};

}  // namespace

std::unique_ptr<Callback> tensorboard(std::filesystem::path folder, int64_t every) {
  return std::make_unique<TensorBoard>(std::move(folder), every);
}

}  // namespace mlo
