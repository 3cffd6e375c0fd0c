#include "launch/nvml.h"

#include "launch/launch.h"
#include "tests/catch.h"

namespace xdit::launch {

TEST_CASE("the driver tells of the GPUs that a machine has, and without one there are none") {
  const Nvml nvml;
  CHECK(nvml.driver().empty() == (nvml.cuda_version() == 0));
  for (std::size_t i = 0; i < nvml.size(); ++i) {
    CHECK(nvml.find(nvml.gpu(i).uuid) == i);
    const GpuState state = nvml.state(i);
    CHECK(state.memory_free <= nvml.gpu(i).memory);
    CHECK(state.now.sm_mhz <= state.sm_mhz_max);
    CHECK(state.pci_bus.find(':') != std::string::npos);
    for (std::size_t j = 0; j < i; ++j) CHECK(nvml.pair(i, j).access == nvml.pair(j, i).access);
  }
  CHECK(nvml.find("GPU-of-nobody") == nvml.size());
  CHECK(this_machine().gpus.size() <= nvml.size());
}

TEST_CASE("a reason of throttling is said in words") {
  CHECK(throttle_text(0).empty());
  CHECK(throttle_text(0x1).empty());  // an idle GPU
  CHECK(throttle_text(0x4) == "power");
  CHECK(throttle_text(0x40) == "heat");
  CHECK(throttle_text(0x20 | 0x80) == "power and heat");
}

}  // namespace xdit::launch
