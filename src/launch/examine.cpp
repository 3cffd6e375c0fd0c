#include <sys/resource.h>
#include <sys/statvfs.h>

#include <algorithm>

#include "launch/health.h"
#include "launch/launch.h"
#include "launch/probe.h"

namespace xdit::launch {
namespace {

constexpr double kTrialS = 120;  // more GPUs than any machine has, tried pair by pair

std::uint64_t limit_of(__rlimit_resource what) {
  rlimit limit{};
  return ::getrlimit(what, &limit) == 0 ? limit.rlim_cur : 0;
}

double least_positive(const std::vector<double>& rates) {
  double least = 0;
  for (const double rate : rates)
    if (rate > 0 && (least == 0 || rate < least)) least = rate;
  return least;
}

}  // namespace

Health examine(const std::filesystem::path& disk, bool wants_gpus, const StopToken& stop) {
  const Nvml nvml;
  Health health{.machine = this_machine(),
                .driver = nvml.driver(),
                .driver_fault = nvml.fault(),
                .cuda = nvml.cuda_version(),
                .gpus = {},
                .tried = {},
                .probe = {},
                .probe_fault = {},
                .probe_fix = {},
                .disk = disk_rate(disk),
                .disk_path = disk.string(),
                .open_files = limit_of(RLIMIT_NOFILE),
                .locked = limit_of(RLIMIT_MEMLOCK)};
  health.hidden = nvml.size() - std::min(nvml.size(), health.machine.gpus.size());
  struct statvfs shm {};
  if (::statvfs("/dev/shm", &shm) == 0) health.shm = shm.f_blocks * shm.f_frsize;
  std::vector<std::size_t> numbers;
  for (const parallel::Gpu& gpu : health.machine.gpus) {
    numbers.push_back(nvml.find(gpu.uuid));
    health.gpus.push_back(nvml.state(numbers.back()));
    health.tried.push_back(health.gpus.back().now);
  }
  health.machine.measured.read = health.disk;
  if (!wants_gpus || health.gpus.empty()) return health;
  const auto look = [&] {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const GpuSample now = nvml.sample(numbers[i]);
      GpuSample& most = health.tried[i];
      most.sm_mhz = std::max(most.sm_mhz, now.sm_mhz);
      most.power_w = std::max(most.power_w, now.power_w);
      most.temperature_c = std::max(most.temperature_c, now.temperature_c);
      most.throttle |= now.throttle;
    }
  };
  try {
    health.probe = try_gpus(numbers.size(), kTrialS, stop, look);
  } catch (const Error& error) {
    stop.check();
    health.probe_fault = error.message();
    health.probe_fix = error.fix();
  }
  std::vector<double> pairs;
  for (const auto& row : health.probe.pairs) pairs.insert(pairs.end(), row.begin(), row.end());
  parallel::Rates& measured = health.machine.measured;
  measured.product = health.probe.product;
  measured.memory = health.probe.memory;
  measured.peer = least_positive(pairs);
  measured.host = least_positive(health.probe.host);
  return health;
}

}  // namespace xdit::launch
