#include "launch/nvml.h"

#include <dlfcn.h>

#include <array>

namespace xdit::launch {
namespace {

// Types and numbers of nvml.h: the driver brings the library, and only CUDA toolkits bring the header.
struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned gpu, memory;
};
struct PciInfo {
  std::array<char, 16> legacy;
  unsigned domain, bus, device, id, subsystem;
  std::array<char, 32> bus_id;
};
struct ProcessInfo {
  unsigned pid;
  unsigned long long memory;
  unsigned gpu_instance, compute_instance;
};
constexpr unsigned kSmClock = 1;
constexpr unsigned kOnDie = 0;  // the sensor of temperature
constexpr unsigned kWrite = 1;  // ways between GPUs
constexpr unsigned kNvlink = 2;
constexpr int kOneNode = 40;  // levels of the topology below it: bridges of one socket
constexpr unsigned kMostLinks = 18;
constexpr int kSuccess = 0;

}  // namespace

template <class... A>
bool Nvml::call(const char* function, A... arguments) const {
  if (!usable_) return false;
  const auto known = reinterpret_cast<int (*)(A...)>(::dlsym(library_.get(), function));
  return known != nullptr && known(arguments...) == kSuccess;
}

template <class T>
T Nvml::number(const char* function, void* device) const {
  T value{};
  return call(function, device, &value) ? value : T{};
}

template <class... A>
std::string Nvml::text(const char* function, A... arguments) const {
  std::array<char, 96> text{};
  return call(function, arguments..., text.data(), static_cast<unsigned>(text.size())) ? text.data() : "";
}

Nvml::Nvml() : library_(::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL), ::dlclose) {
  if (!library_) return;
  const auto init = reinterpret_cast<int (*)()>(::dlsym(library_.get(), "nvmlInit_v2"));
  const auto meaning = reinterpret_cast<const char* (*)(int)>(::dlsym(library_.get(), "nvmlErrorString"));
  const int code = init == nullptr ? kSuccess : init();
  usable_ = init != nullptr && code == kSuccess;
  if (code != kSuccess && meaning != nullptr) fault_ = meaning(code);
  unsigned count = 0;
  call("nvmlDeviceGetCount_v2", &count);
  for (unsigned i = 0; i < count; ++i) {
    void* device = nullptr;
    if (call("nvmlDeviceGetHandleByIndex_v2", i, &device)) devices_.push_back(device);
  }
}

Nvml::~Nvml() {
  call("nvmlShutdown");
}

parallel::Gpu Nvml::gpu(std::size_t gpu) const {
  void* const device = devices_.at(gpu);
  int major = 0;
  int minor = 0;
  static_cast<void>(call("nvmlDeviceGetCudaComputeCapability", device, &major, &minor));
  return {.name = text("nvmlDeviceGetName", device),
          .uuid = text("nvmlDeviceGetUUID", device),
          .memory = number<Memory>("nvmlDeviceGetMemoryInfo", device).total,
          .capability = 10 * major + minor};
}

GpuState Nvml::state(std::size_t gpu) const {
  void* const device = devices_.at(gpu);
  GpuState state{
      .pci_bus = number<PciInfo>("nvmlDeviceGetPciInfo_v3", device).bus_id.data(),
      .memory_free = number<Memory>("nvmlDeviceGetMemoryInfo", device).free,
      .power_limit_w = number<unsigned>("nvmlDeviceGetEnforcedPowerLimit", device) / 1e3,
      .power_default_w = number<unsigned>("nvmlDeviceGetPowerManagementDefaultLimit", device) / 1e3,
      .busy_percent = number<Utilization>("nvmlDeviceGetUtilizationRates", device).gpu,
      .processes = {},
      .now = sample(gpu)};
  unsigned mhz = 0;
  if (call("nvmlDeviceGetMaxClockInfo", device, kSmClock, &mhz)) state.sm_mhz_max = mhz;
  for (unsigned link = 0; link < kMostLinks; ++link) {
    int up = 0;
    if (call("nvmlDeviceGetNvLinkState", device, link, &up)) state.nvlinks += up;
  }
  std::array<ProcessInfo, 64> processes{};
  auto count = static_cast<unsigned>(processes.size());
  if (call("nvmlDeviceGetComputeRunningProcesses_v3", device, &count, processes.data()))
    for (unsigned i = 0; i < count; ++i)
      state.processes.push_back({processes.at(i).pid, processes.at(i).memory});
  return state;
}

GpuSample Nvml::sample(std::size_t gpu) const {
  void* const device = devices_.at(gpu);
  GpuSample sample{
      .power_w = number<unsigned>("nvmlDeviceGetPowerUsage", device) / 1e3,
      .throttle = number<unsigned long long>("nvmlDeviceGetCurrentClocksThrottleReasons", device)};
  unsigned value = 0;
  if (call("nvmlDeviceGetClockInfo", device, kSmClock, &value)) sample.sm_mhz = value;
  if (call("nvmlDeviceGetTemperature", device, kOnDie, &value)) sample.temperature_c = value;
  return sample;
}

GpuPair Nvml::pair(std::size_t a, std::size_t b) const {
  const auto works = [&](unsigned way, bool unknown) {
    int status = kSuccess;
    return call("nvmlDeviceGetP2PStatus", devices_.at(a), devices_.at(b), way, &status) ? status == kSuccess
                                                                                        : unknown;
  };
  int level = 0;
  const bool known = call("nvmlDeviceGetTopologyCommonAncestor", devices_.at(a), devices_.at(b), &level);
  const bool nvlink = works(kNvlink, false);
  return {.access = nvlink || works(kWrite, true), .nvlink = nvlink, .socket = !known || level <= kOneNode};
}

std::size_t Nvml::find(std::string_view uuid) const {
  std::size_t gpu = 0;
  while (gpu < size() && text("nvmlDeviceGetUUID", devices_[gpu]) != uuid) ++gpu;
  return gpu;
}

std::string Nvml::driver() const {
  return text("nvmlSystemGetDriverVersion");
}

std::int64_t Nvml::cuda_version() const {
  int version = 0;
  return call("nvmlSystemGetCudaDriverVersion_v2", &version) ? version : 0;
}

std::string throttle_text(std::uint64_t throttle) {
  const bool power = (throttle & kThrottledByPower) != 0;
  const bool heat = (throttle & kThrottledByHeat) != 0;
  return power && heat ? "power and heat" : power ? "power" : heat ? "heat" : "";
}

}  // namespace xdit::launch
