#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/plan.h"

/// What the NVIDIA driver tells of GPUs through its library NVML: no CUDA context is made.
namespace xdit::launch {

/// Of one moment; 0 where the driver does not tell.
struct GpuSample {
  std::int64_t sm_mhz = 0;
  double power_w = 0;
  std::int64_t temperature_c = 0;
  std::uint64_t throttle = 0;  ///< why the clock is below its maximum: bits as in nvml.h
};
inline constexpr std::uint64_t kThrottledByPower = 0x84;  ///< the power limit, or the supply's brake
inline constexpr std::uint64_t kThrottledByHeat = 0x60;   ///< by the driver, or by the GPU itself
inline constexpr std::uint64_t kPowerBrake = 0x80;        ///< of these, the supply's
/// "power", "heat", "power and heat" or "".
[[nodiscard]] std::string throttle_text(std::uint64_t throttle);

struct GpuProcess {
  std::int64_t pid = 0;
  std::uint64_t memory = 0;  ///< bytes
};

struct GpuState {
  std::string pci_bus;            ///< "00000000:1B:00.0"
  std::uint64_t memory_free = 0;  ///< bytes
  std::int64_t sm_mhz_max = 0;
  double power_limit_w = 0;
  double power_default_w = 0;     ///< the limit that it is made for
  std::int64_t busy_percent = 0;  ///< of the last second, about
  std::int64_t nvlinks = 0;       ///< that are up
  std::vector<GpuProcess> processes;
  GpuSample now;
};

/// How two GPUs reach each other.
struct GpuPair {
  bool access = true;   ///< nobody says that they cannot write each other's memory
  bool nvlink = false;  ///< over NVLink
  bool socket = true;   ///< below one CPU socket
};

/// GPUs are numbered as the driver does: by their places on the PCI bus. No driver: no GPUs.
class Nvml {
 public:
  Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;
  ~Nvml();

  [[nodiscard]] std::size_t size() const { return devices_.size(); }
  [[nodiscard]] parallel::Gpu gpu(std::size_t gpu) const;
  [[nodiscard]] GpuState state(std::size_t gpu) const;
  [[nodiscard]] GpuSample sample(std::size_t gpu) const;  ///< well below a millisecond
  [[nodiscard]] GpuPair pair(std::size_t a, std::size_t b) const;
  [[nodiscard]] std::size_t find(std::string_view uuid) const;       ///< size() when there is none
  [[nodiscard]] const std::string& fault() const { return fault_; }  ///< why it does not answer, or ""
  [[nodiscard]] std::string driver() const;                          ///< "570.86.15", or ""
  [[nodiscard]] std::int64_t cuda_version() const;                   ///< that the driver serves: 12080, or 0

 private:
  template <class... A>
  bool call(const char* function, A... arguments) const;
  template <class T>
  T number(const char* function, void* device) const;
  template <class... A>
  [[nodiscard]] std::string text(const char* function, A... arguments) const;

  std::unique_ptr<void, int (*)(void*)> library_;
  bool usable_ = false;
  std::string fault_;
  std::vector<void*> devices_;
};

}  // namespace xdit::launch
