// How fast images come, on the thread that asks for them: it must not be what training waits for.
#include "case.h"

#include <mlo/data/image_source.h>
#include <torch/types.h>
#include <torch/utils.h>

namespace bench {

Case images_case() {
  return {"images",
          "1,024 images a step through image_source, no workers: 32x32 padded, cropped, flipped; "
          "96x96 to resized crops of 64",
          1, [](const std::string&) {
            torch::manual_seed(1);
            const auto contestant = [](const char* name, int64_t stored,
                                       const mlo::Augmentation& augmentation) {
              const auto set =
                  mlo::tensor_images(torch::randint(0, 256, {4096, 3, stored, stored}, at::kByte),
                                     torch::zeros({4096}, at::kLong));
              const std::shared_ptr<mlo::BatchSource> source = mlo::image_source(
                  set, {},
                  {.batch_size = 128, .augmentation = augmentation, .workers = 0, .seed = 1});
              return Contestant{name,
                                [source](int64_t n) {
                                  for (int64_t i = 0; i < 8 * n; ++i) source->next();
                                },
                                nullptr};
            };
            mlo::Augmentation padded;
            padded.crop_padding = 4, padded.flip = true;
            mlo::Augmentation resized;
            resized.size = 64, resized.flip = true;
            resized.resized_crop.emplace();
            return std::vector<Contestant>{contestant("padded", 32, padded),
                                           contestant("resized", 96, resized)};
          }};
}

}  // namespace bench
