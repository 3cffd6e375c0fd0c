#pragma once
#include <cstddef>
#include <cstdint>

#include "comm/peer_memory.h"
#include "comm/use.h"

namespace xdit::comm {

/// Zeroed memory of a GPU, counted. Given back when the GPU is done with what was enqueued before.
class DeviceBlock final : public Block {
 public:
  DeviceBlock(std::int64_t bytes, int device, Use& use);
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;
  ~DeviceBlock() override;
  [[nodiscard]] std::byte* data() const noexcept override { return static_cast<std::byte*>(data_); }

 private:
  void* data_ = nullptr;
  std::size_t bytes_;
  int device_;
  Use& use_;
};

}  // namespace xdit::comm
