#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "comm/host_memory.h"

namespace xdit::comm {

/// Peer memory of CPU ranks that each work in a copy of their own: what pinned_memory is to GPUs.
class RelayedMemory final : public HostMemory {
 public:
  using HostMemory::HostMemory;

  std::unique_ptr<Block> create(std::int64_t bytes, Handle* handle) override;
  [[nodiscard]] bool relays() const override { return true; }
  void label(std::span<const Label> labels, Stream stream) override;
  void land(std::span<const Landing> landings, Stream stream) override;
};

}  // namespace xdit::comm
