#include "launch/health.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

namespace xdit::launch {
namespace {

using parallel::Link;

constexpr std::int64_t kNeededCuda = 13000;        // LibTorch's
constexpr std::uint64_t kLittleShm = 256'000'000;  // NCCL's own share with eight ranks
constexpr std::uint64_t kFewFiles = 1024;
constexpr double kSlowDisk = 1e9;
constexpr double kSlowHost = 1e10;
constexpr double kSlowPair = 0.6;  // of the fastest pair with the same link

class Findings {
 public:
  explicit Findings(const Health& health) : health_(health) {}

  void add(std::string what, std::string mend, bool fatal = false) {
    all_.push_back({std::move(what), std::move(mend), fatal});
  }

  void driver() {
    if (!health_.driver_fault.empty())
      return add("the NVIDIA driver does not answer: " + health_.driver_fault,
                 "a reboot after an update of the driver; in a container, that of the host's driver", true);
    if (health_.driver.empty())
      return add("no NVIDIA driver", "install driver 580 or newer, or --device cpu", true);
    if (health_.cuda < kNeededCuda)
      add(fmt::format("driver {} serves CUDA {}.{}, and this build needs {}", health_.driver,
                      health_.cuda / 1000, health_.cuda % 1000 / 10, kNeededCuda / 1000),
          "driver 580 or newer", true);
    if (health_.gpus.empty())
      add("no GPU is visible",
          health_.hidden > 0
              ? "CUDA_VISIBLE_DEVICES hides every GPU: unset it, or name one that nvidia-smi -L lists"
              : "nvidia-smi -L; in a container --gpus all",
          true);
    if (!health_.probe_fault.empty()) add(health_.probe_fault, health_.probe_fix, true);
    for (std::size_t i = 0; i < health_.probe.faults.size(); ++i)
      if (!health_.probe.faults[i].empty())
        add(fmt::format("GPU {} cannot be used: {}", i, health_.probe.faults[i]),
            "end what holds it, or --gpus with the others", health_.gpus.size() == 1);
    if (health_.probe_fault.empty() && !health_.gpus.empty() && health_.probe.cuda == 0)
      add("this LibTorch has no CUDA", "a build with CUDA: scripts/build on a machine with a GPU", true);
  }

  void gpu(std::size_t i) {
    const GpuState& state = health_.gpus[i];
    const parallel::Gpu& gpu = health_.machine.gpus[i];
    const std::uint64_t taken = gpu.memory - std::min(gpu.memory, state.memory_free);
    std::vector<std::int64_t> ids;
    for (const GpuProcess& process : state.processes) ids.push_back(process.pid);
    if (!ids.empty() || taken > gpu.memory / 20)
      add(fmt::format("GPU {}: other processes hold {:.1f} GB of {:.1f} GB", i, real_gb(taken),
                      real_gb(gpu.memory)),
          ids.empty()
              ? "nvidia-smi on the host shows them (they may be in another container), or --gpus with others"
              : fmt::format("end process {}, or --gpus with others", fmt::join(ids, ", ")));
    const GpuSample& tried = health_.tried[i];
    if ((tried.throttle & kThrottledByHeat) != 0)
      add(fmt::format("GPU {}: heat slows it down ({} C, {} MHz of {})", i, tried.temperature_c, tried.sm_mhz,
                      state.sm_mhz_max),
          "better cooling or a lower power limit (nvidia-smi -pl)");
    if ((tried.throttle & kPowerBrake) != 0)
      add(fmt::format("GPU {}: the power supply's brake slows it down", i),
          "the server's power supplies and cables");
    if (state.power_limit_w > 0 && state.power_limit_w < 0.99 * state.power_default_w)
      add(fmt::format("GPU {}: limited to {:.0f} W of {:.0f} W", i, state.power_limit_w,
                      state.power_default_w),
          fmt::format("nvidia-smi -i {} -pl {:.0f}", gpu.uuid, state.power_default_w));
    const auto most = std::max_element(health_.gpus.begin(), health_.gpus.end(),
                                       [](const auto& a, const auto& b) { return a.nvlinks < b.nvlinks; });
    if (state.nvlinks < most->nvlinks)
      add(fmt::format("GPU {}: {} NVLinks are up, on another {}", i, state.nvlinks, most->nvlinks),
          "nvidia-smi nvlink -s; a reset of the GPU, its seat or its bridge");
    const auto& host = health_.probe.host;
    if (i < host.size() && host[i] > 0 && host[i] < kSlowHost)
      add(fmt::format("GPU {}: {:.1f} GB/s from the host", i, host[i] / 1e9),
          "a PCIe slot with 16 lanes (nvidia-smi -q -d PCIE), ranks on the GPU's own socket");
  }

  void pairs() {
    const auto& links = health_.machine.links;
    std::set<Link> kinds;
    std::vector<std::string> apart;
    for (std::size_t i = 0; i < links.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) {
        kinds.insert(links[i][j]);
        if (links[i][j] == Link::kNone) apart.push_back(fmt::format("{}-{}", j, i));
      }
    if (!apart.empty())
      add(fmt::format("no peer access between GPUs {}: ranks exchange through the host's memory",
                      fmt::join(apart, ", ")),
          "ACS and IOMMU off in the BIOS, or --gpus with GPUs that reach each other");
    if (kinds.contains(Link::kNvlink) && kinds.size() > 1)
      add("NVLink joins some GPUs, others meet over PCIe",
          "--gpus within one island, or --data between islands; ranks are placed by it");
    slow_pairs();
    std::set<std::string> names;
    for (const parallel::Gpu& gpu : health_.machine.gpus) names.insert(gpu.name);
    if (names.size() > 1)
      add(fmt::format("unlike GPUs: {}", fmt::join(names, ", ")),
          "--gpus with those of one kind: among unlike ones bytes differ and the slowest sets the pace");
  }

  void host() {
    if (health_.shm < kLittleShm)
      add(fmt::format("/dev/shm has {:.0f} MB", static_cast<double>(health_.shm) / 1e6),
          "docker run --shm-size 1g (or --ipc host), for NCCL between ranks");
    if (health_.open_files < kFewFiles)
      add(fmt::format("at most {} open files", health_.open_files), fmt::format("ulimit -n {}", kFewFiles));
    if (health_.disk > 0 && health_.disk < kSlowDisk)
      add(fmt::format("{} is read at {:.2f} GB/s: FLUX.1 takes {:.0f} s to load for the first time",
                      health_.disk_path, health_.disk / 1e9, 33.7e9 / health_.disk),
          "models on a local SSD");
  }

  std::vector<Problem> take() { return std::move(all_); }

 private:
  static double real_gb(std::uint64_t bytes) { return static_cast<double>(bytes) / 1e9; }

  void slow_pairs() {
    const auto& rates = health_.probe.pairs;
    const auto& links = health_.machine.links;
    for (std::size_t i = 0; i < std::min(rates.size(), links.size()); ++i)
      for (std::size_t j = 0; j < rates[i].size(); ++j) {
        double best = 0;
        for (std::size_t a = 0; a < rates.size(); ++a)
          for (std::size_t b = 0; b < rates[a].size(); ++b)
            if (links[a][b] == links[i][j]) best = std::max(best, rates[a][b]);
        if (rates[i][j] > 0 && rates[i][j] < kSlowPair * best)
          add(fmt::format("GPU {} to {}: {:.0f} GB/s, while others with such a link reach {:.0f}", i, j,
                          rates[i][j] / 1e9, best / 1e9),
              "other work on them or on the link; nvidia-smi nvlink -e; a reset of the GPU");
      }
  }

  const Health& health_;
  std::vector<Problem> all_;
};

}  // namespace

std::vector<Problem> problems_of(const Health& health, bool wants_gpus) {
  Findings findings(health);
  if (wants_gpus) {
    findings.driver();
    for (std::size_t i = 0; i < health.gpus.size(); ++i) findings.gpu(i);
    findings.pairs();
  }
  findings.host();
  return findings.take();
}

}  // namespace xdit::launch
