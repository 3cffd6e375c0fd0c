#include "tests/comm/memory.h"

#include <algorithm>
#include <cstdlib>

#include "comm/device_memory.h"
#include "comm/pinned_memory.h"
#include "comm/relayed_memory.h"
#include "tests/comm/device/cuda.h"

namespace xdit::tests {
namespace {

void copy_bytes(std::byte* to, const std::byte* from, std::size_t count) {
  if (on_gpu())
    must(cudaMemcpy(to, from, count, cudaMemcpyDefault));
  else
    std::copy_n(from, count, to);
}

}  // namespace

bool on_gpu() {
  return std::getenv("XDIT_TEST_CUDA") != nullptr;
}

std::shared_ptr<comm::PeerMemory> tested_memory(const std::shared_ptr<const comm::Job>& job, int rank,
                                                std::chrono::nanoseconds timeout) {
  if (!on_gpu() && relayed()) return std::make_shared<comm::RelayedMemory>(job, rank, timeout);
  if (!on_gpu()) return std::make_shared<comm::HostMemory>(job, rank, timeout);
  int devices = 0;
  must(cudaGetDeviceCount(&devices));
  if (relayed()) return comm::pinned_memory(job, rank, rank % devices, timeout);
  return comm::device_memory(job, rank, rank % devices, timeout);
}

std::shared_ptr<std::byte> hold(std::span<const std::byte> bytes) {
  void* data = nullptr;
  if (on_gpu())
    must(cudaMalloc(&data, std::max<std::size_t>(1, bytes.size())));
  else
    data = std::malloc(std::max<std::size_t>(1, bytes.size()));
  const auto release = [](std::byte* held) {
    if (on_gpu())
      static_cast<void>(cudaFree(held));
    else
      std::free(held);
  };
  std::shared_ptr<std::byte> held(static_cast<std::byte*>(data), release);
  copy_bytes(held.get(), bytes.data(), bytes.size());
  return held;
}

void fill(std::byte* at, std::span<const std::byte> bytes) {
  copy_bytes(at, bytes.data(), bytes.size());
}

void settle(const comm::Group& group) {
  if (on_gpu()) must(cudaStreamSynchronize(nullptr));
  group.check();
}

std::vector<std::byte> look(const comm::Group& group, const std::byte* at, std::int64_t count) {
  settle(group);
  std::vector<std::byte> seen(static_cast<std::size_t>(count));
  copy_bytes(seen.data(), at, seen.size());
  return seen;
}

}  // namespace xdit::tests
