#include "tests/comm/memory.h"

#include <algorithm>

#include "comm/relayed_memory.h"

namespace xdit::tests {

bool on_gpu() {
  return false;
}

std::shared_ptr<comm::PeerMemory> tested_memory(const std::shared_ptr<const comm::Job>& job, int rank,
                                                std::chrono::nanoseconds timeout) {
  if (relayed()) return std::make_shared<comm::RelayedMemory>(job, rank, timeout);
  return std::make_shared<comm::HostMemory>(job, rank, timeout);
}

std::shared_ptr<std::byte> hold(std::span<const std::byte> bytes) {
  std::shared_ptr<std::byte> held(new std::byte[bytes.size()], std::default_delete<std::byte[]>());
  std::ranges::copy(bytes, held.get());
  return held;
}

void fill(std::byte* at, std::span<const std::byte> bytes) {
  std::ranges::copy(bytes, at);
}

void settle(const comm::Group& group) {
  group.check();
}

std::vector<std::byte> look(const comm::Group& group, const std::byte* at, std::int64_t count) {
  settle(group);
  return {at, at + count};
}

}  // namespace xdit::tests
