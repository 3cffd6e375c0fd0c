#include "comm/device_memory.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <new>
#include <stop_token>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include "comm/cuda_error.h"
#include "comm/wait_error.h"
#include "core/error.h"
#include "cuda/peer_memory.h"

namespace xdit::comm {
namespace {

using std::chrono::nanoseconds;

constexpr nanoseconds kSlice = std::chrono::milliseconds(20);  // how soon an abort is seen
// CUDA shares whole pages with a peer: nothing else may lie on them.
constexpr std::int64_t kPage = std::int64_t{2} << 20U;

/// What a Handle holds.
struct Exported {
  cudaIpcMemHandle_t memory;
  std::array<char, 32> bus;  // "0000:1b:00.0": device numbers differ between processes
};
static_assert(std::is_trivially_copyable_v<Exported> && sizeof(Exported) <= sizeof(Handle));

class DeviceBlock final : public Block {
 public:
  DeviceBlock(void* data, int device, cudaError_t (*release)(void*))
      : data_(data), device_(device), release_(release) {}
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;
  ~DeviceBlock() override {
    static_cast<void>(cudaSetDevice(device_));
    static_cast<void>(cudaDeviceSynchronize());  // work that was enqueued may still write there
    static_cast<void>(release_(data_));
  }
  [[nodiscard]] std::byte* data() const noexcept override { return static_cast<std::byte*>(data_); }

 private:
  void* data_;
  int device_;
  cudaError_t (*release_)(void*);
};

struct FreeHost {
  void operator()(cuda::Watch* watch) const { static_cast<void>(cudaFreeHost(watch)); }
};
struct FreeDevice {
  void operator()(std::uint32_t* word) const { static_cast<void>(cudaFree(word)); }
};

cuda::RowCopy row_copy(const Copy& copy) {
  if (copy.rows == 1 || (copy.from_stride == copy.row_bytes && copy.to_stride == copy.row_bytes))
    return {copy.from, copy.to, 1, copy.rows * copy.row_bytes, 0, 0};
  return {copy.from, copy.to, copy.rows, copy.row_bytes, copy.from_stride, copy.to_stride};
}

cuda::Signal device_signal(const Flag& flag) {
  return {flag.word, flag.count, flag.peer};
}

/// Launches `items` in as few batches as they fit in.
template <class Item, class T, class Launch>
void in_batches(std::span<const Item> items, T (*convert)(const Item&), const Launch& launch) {
  while (!items.empty()) {
    cuda::Batch<T> batch;
    const std::size_t count = std::min(items.size(), std::size_t{cuda::Batch<T>::kMost});
    for (const Item& item : items.first(count)) batch.items[batch.count++] = convert(item);
    check_cuda(launch(batch), "launch an exchange");
    items = items.subspan(count);
  }
}

class DeviceMemory final : public PeerMemory {
 public:
  DeviceMemory(std::shared_ptr<const Job> job, int rank, int device, nanoseconds timeout)
      : job_(std::move(job)), rank_(rank), device_(device), timeout_(timeout) {
    use_device();
    void* pointer = nullptr;
    check_cuda(cudaHostAlloc(&pointer, sizeof(cuda::Watch), cudaHostAllocMapped), "pin host memory");
    watch_.reset(new (pointer) cuda::Watch{});
    check_cuda(cudaHostGetDevicePointer(&pointer, watch_.get(), 0), "map host memory");
    auto* const on_device = static_cast<cuda::Watch*>(pointer);
    check_cuda(cudaMalloc(&pointer, sizeof(std::uint32_t)), "take device memory");
    dead_.reset(static_cast<std::uint32_t*>(pointer));
    check_cuda(cudaMemset(pointer, 0, sizeof(std::uint32_t)), "clear device memory");
    check_cuda(cuda::load_peer_kernels(), "load kernels");
    check_cuda(cudaDeviceSynchronize(), "start the GPU");
    waiting_ = {on_device, dead_.get(), static_cast<std::uint64_t>(timeout_.count())};
    watcher_ = std::jthread([this](const std::stop_token& stop) { keep_watch(stop); });
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() override {
    static_cast<void>(cudaSetDevice(device_));
    static_cast<void>(cudaDeviceSynchronize());  // under watch: what waits will end
  }

  std::unique_ptr<Block> create(std::int64_t bytes, Handle& handle) override {
    check();
    use_device();
    const auto size = static_cast<std::size_t>((bytes + kPage - 1) / kPage * kPage);
    void* data = nullptr;
    check_cuda(cudaMalloc(&data, size), fmt::format("take {} bytes of GPU {}", size, device_));
    auto block = std::make_unique<DeviceBlock>(data, device_, &cudaFree);
    check_cuda(cudaMemset(data, 0, size), "clear device memory");
    check_cuda(cudaDeviceSynchronize(), "clear device memory");
    Exported mine{};
    check_cuda(cudaIpcGetMemHandle(&mine.memory, data), fmt::format("share memory of GPU {}", device_));
    check_cuda(cudaDeviceGetPCIBusId(mine.bus.data(), static_cast<int>(mine.bus.size()), device_),
               fmt::format("find GPU {}", device_));
    std::memcpy(handle.data(), &mine, sizeof mine);
    return block;
  }

  std::unique_ptr<Block> open(const Handle& handle, int peer) override {
    check();
    use_device();
    Exported theirs{};
    std::memcpy(&theirs, handle.data(), sizeof theirs);
    int owner = 0;
    if (cudaDeviceGetByPCIBusId(&owner, theirs.bus.data()) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      throw Error(ExitCode::kDevice,
                  fmt::format("rank {} does not see rank {}'s GPU ({})", rank_, peer, theirs.bus.data()), {},
                  "show every rank all GPUs (CUDA_VISIBLE_DEVICES)");
    }
    int reaches = 1;
    if (owner != device_)
      check_cuda(cudaDeviceCanAccessPeer(&reaches, device_, owner), fmt::format("ask GPU {}", device_));
    if (reaches == 0)
      throw Error(
          ExitCode::kDevice,
          fmt::format("rank {}'s GPU {} does not reach rank {}'s GPU {}", rank_, device_, peer, owner), {},
          "--gpus with GPUs that do (nvidia-smi topo -p2p w), or --data and whole pictures");
    void* data = nullptr;
    check_cuda(cudaIpcOpenMemHandle(&data, theirs.memory, cudaIpcMemLazyEnablePeerAccess),
               fmt::format("map memory of rank {}'s GPU", peer));
    return std::make_unique<DeviceBlock>(data, device_, &cudaIpcCloseMemHandle);
  }

  void copy(std::span<const Copy> copies, Stream stream) override {
    enter();
    in_batches(copies, row_copy, [&](const auto& batch) { return cuda::copy_rows(batch, dead(), stream); });
  }

  void raise(std::span<const Flag> flags, Stream stream) override {
    enter();
    in_batches(flags, device_signal,
               [&](const auto& batch) { return cuda::raise_signals(batch, dead(), stream); });
  }

  void await(std::span<const Flag> flags, const char* operation, Stream stream) override {
    enter();
    in_batches(flags, device_signal,
               [&](const auto& batch) { return cuda::await_signals(batch, operation, waiting_, stream); });
  }

  void sum(float* to, std::span<const float* const> terms, std::int64_t count, Stream stream) override {
    enter();
    cuda::Batch<const float*> batch;
    for (std::size_t i = 0; i < terms.size(); ++i) {
      batch.items[batch.count++] = terms[i];
      if (batch.count < batch.kMost && i + 1 < terms.size()) continue;
      check_cuda(cuda::sum_terms(to, batch, count, stream), "launch a sum");
      batch.items[0] = to;
      batch.count = 1;
    }
  }

  void check() const override {
    const std::uint32_t fault = std::atomic_ref(watch_->fault).load(std::memory_order_acquire);
    if (fault == cuda::Watch::kNone) return;
    if (fault == cuda::Watch::kSilent) throw silent_peer(rank_, watch_->peer, timeout_, watch_->operation);
    throw aborted_wait(job_->aborted().value_or(-1), rank_, watch_->peer, watch_->operation);
  }

 private:
  // Not put back: to put back device 0 would make a context there, and a rank process has one device.
  void use_device() const { check_cuda(cudaSetDevice(device_), fmt::format("use GPU {}", device_)); }
  void enter() const {
    check();
    use_device();
  }
  [[nodiscard]] const std::uint32_t* dead() const { return dead_.get(); }

  // Lets waiting kernels know of time and of the job's end: a kernel cannot tell that its host was stopped.
  void keep_watch(const std::stop_token& stop) {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any wakes;
    auto before = std::chrono::steady_clock::now();
    for (std::uint64_t clock_ns = 0; !stop.stop_requested();) {
      wakes.wait_for(lock, stop, kSlice, [] { return false; });
      const auto now = std::chrono::steady_clock::now();
      clock_ns += static_cast<std::uint64_t>(std::min<nanoseconds>(now - before, 2 * kSlice).count());
      before = now;
      std::atomic_ref(watch_->clock_ns).store(clock_ns, std::memory_order_relaxed);
      if (job_->aborted()) std::atomic_ref(watch_->stop).store(1, std::memory_order_relaxed);
    }
  }

  std::shared_ptr<const Job> job_;
  int rank_;
  int device_;
  nanoseconds timeout_;
  std::unique_ptr<cuda::Watch, FreeHost> watch_;
  std::unique_ptr<std::uint32_t, FreeDevice> dead_;
  cuda::Waiting waiting_{};
  std::jthread watcher_;  // ends first
};

}  // namespace

std::shared_ptr<PeerMemory> device_memory(const std::shared_ptr<const Job>& job, int rank, int device,
                                          nanoseconds timeout) {
  return std::make_shared<DeviceMemory>(job, rank, device, timeout);
}

}  // namespace xdit::comm
