#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <thread>

#include "launch/launch.h"

namespace xdit::launch {
namespace {

// The functions of NVML that are needed, declared as in nvml.h: the driver brings the library, and only
// CUDA toolkits bring the header.
class Nvml {
 public:
  Nvml() : library_(::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL), ::dlclose) {
    if (!library_) return;
    const auto init = symbol<int()>("nvmlInit_v2");
    usable_ = init != nullptr && init() == 0;
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;
  ~Nvml() {
    if (!usable_) return;
    if (const auto shutdown = symbol<int()>("nvmlShutdown")) shutdown();
  }

  [[nodiscard]] std::vector<parallel::Gpu> gpus() const {
    std::vector<parallel::Gpu> all;
    if (!usable_) return all;
    const auto name = symbol<int(void*, char*, unsigned)>("nvmlDeviceGetName");
    const auto uuid = symbol<int(void*, char*, unsigned)>("nvmlDeviceGetUUID");
    const auto memory = symbol<int(void*, Memory*)>("nvmlDeviceGetMemoryInfo");
    if (!name || !uuid || !memory) return all;
    for (void* const device : devices()) {
      std::array<char, 96> text{};
      Memory bytes{};
      parallel::Gpu& gpu = all.emplace_back();
      if (name(device, text.data(), text.size()) == 0) gpu.name = text.data();
      if (uuid(device, text.data(), text.size()) == 0) gpu.uuid = text.data();
      if (memory(device, &bytes) == 0) gpu.memory = bytes.total;
    }
    return all;
  }

  // No pair of GPUs is said to have no way to each other's memory.
  [[nodiscard]] bool peer_access() const {
    constexpr unsigned kWrite = 1;   // NVML_P2P_CAPS_INDEX_WRITE
    constexpr unsigned kNvlink = 2;  // NVML_P2P_CAPS_INDEX_NVLINK
    const auto status_of = symbol<int(void*, void*, unsigned, int*)>("nvmlDeviceGetP2PStatus");
    if (!usable_ || !status_of) return true;
    const std::vector<void*> all = devices();
    for (std::size_t i = 0; i < all.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) {
        const auto refused = [&](unsigned way) {
          int status = 0;
          return status_of(all[i], all[j], way, &status) == 0 && status != 0;
        };
        if (refused(kWrite) && refused(kNvlink)) return false;
      }
    return true;
  }

 private:
  struct Memory {
    unsigned long long total, free, used;
  };
  template <class F>
  [[nodiscard]] F* symbol(const char* name) const {
    return reinterpret_cast<F*>(::dlsym(library_.get(), name));
  }

  [[nodiscard]] std::vector<void*> devices() const {
    std::vector<void*> all;
    if (!usable_) return all;
    const auto count = symbol<int(unsigned*)>("nvmlDeviceGetCount_v2");
    const auto handle = symbol<int(unsigned, void**)>("nvmlDeviceGetHandleByIndex_v2");
    unsigned size = 0;
    if (!count || !handle || count(&size) != 0) return all;
    for (unsigned i = 0; i < size; ++i) {
      void* device = nullptr;
      if (handle(i, &device) == 0) all.push_back(device);
    }
    return all;
  }

  std::unique_ptr<void, int (*)(void*)> library_;
  bool usable_ = false;
};

// CUDA_VISIBLE_DEVICES: numbers or (beginnings of) UUIDs; the first one that names no GPU ends the list.
std::vector<parallel::Gpu> visible(const std::vector<parallel::Gpu>& all, std::string_view names) {
  std::vector<parallel::Gpu> chosen;
  for (std::size_t at = 0; at <= names.size();) {
    const std::size_t comma = std::min(names.find(',', at), names.size());
    std::string_view name = names.substr(at, comma - at);
    while (name.starts_with(' ')) name.remove_prefix(1);
    while (name.ends_with(' ')) name.remove_suffix(1);
    std::size_t number = all.size();
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error != std::errc{} || end != name.data() + name.size())
      number = static_cast<std::size_t>(std::find_if(all.begin(), all.end(),
                                                     [&](const parallel::Gpu& gpu) {
                                                       return !name.empty() && gpu.uuid.starts_with(name);
                                                     }) -
                                        all.begin());
    if (number >= all.size()) break;
    chosen.push_back(all[number]);
    at = comma + 1;
  }
  return chosen;
}

}  // namespace

parallel::Machine this_machine() {
  parallel::Machine machine;
  const Nvml nvml;
  machine.gpus = nvml.gpus();
  machine.peer_access = nvml.peer_access();
  if (const char* names = std::getenv("CUDA_VISIBLE_DEVICES")) machine.gpus = visible(machine.gpus, names);
  machine.host_memory = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                        static_cast<std::uint64_t>(::sysconf(_SC_PAGE_SIZE));
  machine.cores = std::max(1U, std::thread::hardware_concurrency());
  return machine;
}

}  // namespace xdit::launch
