#include "precompiled.h"

#include "engine/profile.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace mlo {
namespace {

// A line of /proc/self/status, in bytes; 0 where there is none.
int64_t resident(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind(field, 0) == 0) return std::stoll(line.substr(field.size() + 1)) * 1024;
  return 0;
}

int64_t aggregate(const c10::CachingDeviceAllocator::StatArray& stats, bool peak) {
  const auto& stat = stats[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  return peak ? stat.peak : stat.current;
}

}  // namespace

ProfileGuard::ProfileGuard(bool on, Counters& counters, at::Device device)
    : on_(on), counters_(counters), device_(device) {
  if (!on_) return;
  if (device_.is_cpu()) {
    std::ofstream("/proc/self/clear_refs")
        << "5";  // the high-water mark starts anew; where forbidden it only grows
    before_ = resident("VmRSS:");
  } else {
    auto* allocator = c10::getDeviceAllocator(device_.type());
    allocator->resetPeakStats(device_.index());
    before_ = aggregate(allocator->getDeviceStats(device_.index()).allocated_bytes, /*peak=*/false);
  }
  start_ = std::chrono::steady_clock::now();
}

ProfileGuard::~ProfileGuard() {
  if (!on_) return;
  counters_.seconds +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const int64_t peak = device_.is_cpu() ? resident("VmHWM:")
                                        : aggregate(c10::getDeviceAllocator(device_.type())
                                                        ->getDeviceStats(device_.index())
                                                        .allocated_bytes,
                                                    true);
  counters_.peak_bytes = std::max(counters_.peak_bytes, peak - before_);
}

}  // namespace mlo
