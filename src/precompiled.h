// Compiled once and used by every target of this build (not installed). Not torch/torch.h: what
// costs time then is not the reading, which this header saves, but the templates that the compiler
// makes anew in every source that has seen them: 5.5 s of them with torch/torch.h, 3 s with this. A
// source that uses more (torch/nn/modules/…, torch/optim/…) includes it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/ATen.h>
#include <torch/autograd.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/optim/optimizer.h>
#include <torch/utils.h>
