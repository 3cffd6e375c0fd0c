#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "comm/group.h"
#include "comm/job.h"

/// The memory that the ranks of a test exchange: the host's (host/memory.cpp), or with XDIT_TEST_CUDA set
/// that of the GPUs (device/memory.cpp), rank r on GPU r modulo their number. A process that forks must not
/// touch them. XDIT_TEST_TRANSPORT=host: memory that relays (comm/relay.h).
namespace xdit::tests {

[[nodiscard]] bool on_gpu();
[[nodiscard]] inline bool relayed() {
  const char* const transport = std::getenv("XDIT_TEST_TRANSPORT");
  return transport != nullptr && std::string_view(transport) == "host";
}
/// For Group::world.
[[nodiscard]] std::shared_ptr<comm::PeerMemory> tested_memory(const std::shared_ptr<const comm::Job>& job,
                                                              int rank, std::chrono::nanoseconds timeout);

/// A copy of `bytes` in it.
[[nodiscard]] std::shared_ptr<std::byte> hold(std::span<const std::byte> bytes);
void fill(std::byte* at, std::span<const std::byte> bytes);
/// Waits for the work on the default stream. Throws what it has met.
void settle(const comm::Group& group);
/// What lies there when that work is done.
[[nodiscard]] std::vector<std::byte> look(const comm::Group& group, const std::byte* at, std::int64_t count);

template <class T>
[[nodiscard]] std::shared_ptr<T> hold_values(const std::vector<T>& values) {
  const std::shared_ptr<std::byte> bytes = hold(std::as_bytes(std::span(values)));
  return {bytes, reinterpret_cast<T*>(bytes.get())};
}
template <class T>
[[nodiscard]] std::vector<T> look_values(const comm::Group& group, const T* at, std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  const auto bytes =
      look(group, reinterpret_cast<const std::byte*>(at), count * static_cast<std::int64_t>(sizeof(T)));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace xdit::tests
