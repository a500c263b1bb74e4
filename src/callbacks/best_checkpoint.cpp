#include "mlo/callbacks/best_checkpoint.h"
#include "mlo/callback.h"
#include "mlo/engine.h"
#include "text.h"

namespace mlo {
namespace {

class BestCheckpoint final : public Callback {
 public:
  explicit BestCheckpoint(std::filesystem::path file) : file_(std::move(file)) {
    require(file_.has_filename(), "best_checkpoint: {} names no file; give the file to save to",
            quoted(file_.string()));
  }

  void on_start(const Engine& engine) override {
    const EngineOptions& options = engine.options();
    require(
        options.validate_every > 0 && !options.early_stopping.metric.empty(),
        "best_checkpoint: nothing tells which step is the best (EngineOptions::validate_every = "
        "{}, EarlyStopping::metric = {}); set both: validate_every > 0, and "
        "EarlyStopping::metric to a \"level.name\" of a validate()",
        options.validate_every, quoted(options.early_stopping.metric));
  }

  void on_validation(const Engine& engine, const ValidationReport& report) override {
    if (report.best) engine.save(file_);
  }

 private:
  std::filesystem::path file_;
};

}  // namespace

std::unique_ptr<Callback> best_checkpoint(std::filesystem::path file) {
  return std::make_unique<BestCheckpoint>(std::move(file));
}

}  // namespace mlo
