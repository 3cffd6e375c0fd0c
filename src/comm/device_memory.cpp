#include "comm/device_memory.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <array>
#include <cstring>
#include <type_traits>

#include "comm/cuda_error.h"
#include "comm/device_block.h"
#include "comm/device_operations.h"
#include "core/error.h"

namespace xdit::comm {
namespace {

// CUDA shares whole pages with a peer: nothing else may lie on them.
constexpr std::int64_t kPage = std::int64_t{2} << 20U;

/// What a Handle holds.
struct Exported {
  cudaIpcMemHandle_t memory;
  std::array<char, 32> bus;  // "0000:1b:00.0": device numbers differ between processes
};
static_assert(std::is_trivially_copyable_v<Exported> && sizeof(Exported) <= sizeof(Handle));

/// A peer's memory.
class OpenedBlock final : public Block {
 public:
  OpenedBlock(void* data, int device) : data_(data), device_(device) {}
  OpenedBlock(const OpenedBlock&) = delete;
  OpenedBlock& operator=(const OpenedBlock&) = delete;
  ~OpenedBlock() override {
    static_cast<void>(cudaSetDevice(device_));
    static_cast<void>(cudaDeviceSynchronize());  // work that was enqueued may still write there
    static_cast<void>(cudaIpcCloseMemHandle(data_));
  }
  [[nodiscard]] std::byte* data() const noexcept override { return static_cast<std::byte*>(data_); }

 private:
  void* data_;
  int device_;
};

class DeviceMemory final : public DeviceOperations {
 public:
  using DeviceOperations::DeviceOperations;

  std::unique_ptr<Block> create(std::int64_t bytes, Handle* handle) override {
    enter();
    auto block = std::make_unique<DeviceBlock>((bytes + kPage - 1) / kPage * kPage, device(), use());
    if (handle == nullptr) return block;
    Exported mine{};
    check_cuda(cudaIpcGetMemHandle(&mine.memory, block->data()),
               fmt::format("share memory of GPU {}", device()));
    check_cuda(cudaDeviceGetPCIBusId(mine.bus.data(), static_cast<int>(mine.bus.size()), device()),
               fmt::format("find GPU {}", device()));
    std::memcpy(handle->data(), &mine, sizeof mine);
    return block;
  }

  std::unique_ptr<Block> open(const Handle& handle, int peer) override {
    enter();
    Exported theirs{};
    std::memcpy(&theirs, handle.data(), sizeof theirs);
    int owner = 0;
    if (cudaDeviceGetByPCIBusId(&owner, theirs.bus.data()) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      throw Error(ExitCode::kDevice,
                  fmt::format("rank {} does not see rank {}'s GPU ({})", rank(), peer, theirs.bus.data()), {},
                  "show every rank all GPUs (CUDA_VISIBLE_DEVICES)");
    }
    int reaches = 1;
    if (owner != device())
      check_cuda(cudaDeviceCanAccessPeer(&reaches, device(), owner), fmt::format("ask GPU {}", device()));
    if (reaches == 0)
      throw Error(
          ExitCode::kDevice,
          fmt::format("rank {}'s GPU {} does not reach rank {}'s GPU {}", rank(), device(), peer, owner), {},
          "--transport host, or --gpus with GPUs that do (nvidia-smi topo -p2p w)");
    void* data = nullptr;
    check_cuda(cudaIpcOpenMemHandle(&data, theirs.memory, cudaIpcMemLazyEnablePeerAccess),
               fmt::format("map memory of rank {}'s GPU", peer));
    return std::make_unique<OpenedBlock>(data, device());
  }
};

}  // namespace

std::shared_ptr<PeerMemory> device_memory(const std::shared_ptr<const Job>& job, int rank, int device,
                                          std::chrono::nanoseconds timeout) {
  return std::make_shared<DeviceMemory>(job, rank, device, timeout);
}

}  // namespace xdit::comm
