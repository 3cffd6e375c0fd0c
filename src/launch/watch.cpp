#include "launch/watch.h"

#include "launch/clock.h"

namespace xdit::launch {
namespace {

constexpr double kEveryS = 0.1;

}  // namespace

void Watch::read() {
  if (gpus_.empty() || now_s() - read_s_ < kEveryS) return;
  if (!nvml_) nvml_.emplace();
  read_s_ = now_s();
  for (const std::string& uuid : gpus_) {
    const std::size_t gpu = nvml_->find(uuid);
    if (gpu == nvml_->size()) continue;
    const GpuSample sample = nvml_->sample(gpu);
    readings_.push_back({.at_s = read_s_ - started_s_,
                         .device_id = uuid,
                         .clock_mhz = static_cast<double>(sample.sm_mhz),
                         .power_w = sample.power_w,
                         .slowed = throttle_text(sample.throttle)});
  }
}

}  // namespace xdit::launch
