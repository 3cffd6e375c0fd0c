#include "comm/pinned_memory.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <utility>

#include "comm/cuda_error.h"
#include "comm/device_block.h"
#include "comm/device_operations.h"
#include "comm/host_memory.h"

namespace xdit::comm {
namespace {

/// Shared memory of the host as a GPU sees it, and the owner's copy.
class PinnedBlock final : public Block {
 public:
  PinnedBlock(SharedMemory memory, int device, std::unique_ptr<Block> local)
      : memory_(std::move(memory)), device_(device), local_(std::move(local)) {
    const auto bytes = static_cast<std::size_t>(memory_.bytes());
    check_cuda(cudaHostRegister(memory_.data(), bytes, cudaHostRegisterPortable | cudaHostRegisterMapped),
               fmt::format("pin {} bytes of host memory", bytes));
    const cudaError_t mapped = cudaHostGetDevicePointer(&data_, memory_.data(), 0);
    if (mapped != cudaSuccess) static_cast<void>(cudaHostUnregister(memory_.data()));
    check_cuda(mapped, "map host memory");
  }
  PinnedBlock(const PinnedBlock&) = delete;
  PinnedBlock& operator=(const PinnedBlock&) = delete;
  ~PinnedBlock() override {
    static_cast<void>(cudaSetDevice(device_));
    static_cast<void>(cudaDeviceSynchronize());  // work that was enqueued may still write there
    static_cast<void>(cudaHostUnregister(memory_.data()));
  }
  [[nodiscard]] std::byte* data() const noexcept override { return static_cast<std::byte*>(data_); }
  [[nodiscard]] std::byte* local() const noexcept override { return local_ ? local_->data() : data(); }
  void opened() override { memory_.close_descriptor(); }

 private:
  SharedMemory memory_;
  int device_;
  std::unique_ptr<Block> local_;  // null: a peer's block
  void* data_ = nullptr;
};

class PinnedMemory final : public DeviceOperations {
 public:
  using DeviceOperations::DeviceOperations;

  std::unique_ptr<Block> create(std::int64_t bytes, Handle* handle) override {
    enter();
    auto local = std::make_unique<DeviceBlock>(bytes, device(), use());
    if (handle == nullptr) return local;
    return std::make_unique<PinnedBlock>(create_shared(bytes, handle), device(), std::move(local));
  }

  std::unique_ptr<Block> open(const Handle& handle, int peer) override {
    enter();
    return std::make_unique<PinnedBlock>(open_shared(handle, peer), device(), nullptr);
  }

  [[nodiscard]] bool relays() const override { return true; }
};

}  // namespace

std::shared_ptr<PeerMemory> pinned_memory(const std::shared_ptr<const Job>& job, int rank, int device,
                                          std::chrono::nanoseconds timeout) {
  return std::make_shared<PinnedMemory>(job, rank, device, timeout);
}

}  // namespace xdit::comm
