#pragma once
#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "comm/peer_memory.h"

namespace xdit::parallel {

/// The stream that Torch works on in this thread; null on the CPU.
[[nodiscard]] comm::Stream current_stream(c10::Device device);

/// A stream beside the current one, for copies ahead of their use. On the CPU they are done at once.
class SideStream {
 public:
  /// `urgent`: its kernels go first where they find room.
  explicit SideStream(c10::Device device, bool urgent = false);
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;
  ~SideStream();
  [[nodiscard]] comm::Stream stream() const;  ///< null on the CPU
  void begin();                               ///< what follows comes after what is on the current stream now
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes);
  void end();
  void wait();  ///< the current stream goes on after the last `end`

 private:
  struct Device;
  std::unique_ptr<Device> device_;  ///< null on the CPU
};

}  // namespace xdit::parallel
