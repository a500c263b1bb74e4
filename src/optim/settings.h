#pragma once

#include <map>
#include <string>

namespace torch::optim {
class Optimizer;
}

namespace mlo::detail {

/// LibTorch's name of the class, also for those of `optim/fused.h`.
std::string class_name(const torch::optim::Optimizer& optimizer);

/// The class under "", its options under ".lr", ".betas" and so on, the number of parameters in
/// each group under ".groups". Options that are not the same in all groups are listed by group:
/// "0.05 | 0". Of a class whose options cannot be saved, the learning rate alone.
std::map<std::string, std::string> settings_of(const torch::optim::Optimizer& optimizer);

}  // namespace mlo::detail
