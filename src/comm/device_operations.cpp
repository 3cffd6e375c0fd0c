#include "comm/device_operations.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <new>
#include <utility>

#include "comm/cuda_error.h"
#include "comm/wait_error.h"

namespace xdit::comm {
namespace {

using std::chrono::nanoseconds;

constexpr nanoseconds kSlice = std::chrono::milliseconds(20);  // how soon an abort is seen

// Not put back: to put back device 0 would make a context there, and a rank process has one device.
void use_device(int device) {
  check_cuda(cudaSetDevice(device), fmt::format("use GPU {}", device));
}

cuda::RowCopy row_copy(const Copy& copy) {
  if (copy.rows == 1 || (copy.from_stride == copy.row_bytes && copy.to_stride == copy.row_bytes))
    return {copy.from, copy.to, 1, copy.rows * copy.row_bytes, 0, 0};
  return {copy.from, copy.to, copy.rows, copy.row_bytes, copy.from_stride, copy.to_stride};
}

cuda::Signal device_signal(const Flag& flag) {
  return {flag.word, flag.count, flag.peer};
}

cuda::Label device_label(const Label& label) {
  const Extent& extent = label.extent;
  return {reinterpret_cast<cuda::Extent*>(label.list),
          label.count,
          static_cast<std::int32_t>(label.index),
          {extent.offset, extent.rows, extent.row_bytes, extent.stride}};
}

cuda::Landing device_landing(const Landing& landing) {
  return {reinterpret_cast<const cuda::Extent*>(landing.list), landing.count, landing.from, landing.to};
}

static_assert(sizeof(Extent) == sizeof(cuda::Extent) &&
              offsetof(Extent, row_bytes) == offsetof(cuda::Extent, row_bytes));
constexpr cuda::Lists kLists{Label::kMost, Label::kAhead};

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

}  // namespace

void DeviceOperations::FreeHost::operator()(cuda::Watch* watch) const {
  static_cast<void>(cudaFreeHost(watch));
}

void DeviceOperations::FreeDevice::operator()(void* word) const {
  static_cast<void>(cudaFree(word));
}

DeviceOperations::DeviceOperations(std::shared_ptr<const Job> job, int rank, int device, nanoseconds timeout)
    : job_(std::move(job)), rank_(rank), device_(device), timeout_(timeout) {
  use_device(device_);
  void* pointer = nullptr;
  check_cuda(cudaHostAlloc(&pointer, sizeof(cuda::Watch), cudaHostAllocMapped), "pin host memory");
  watch_.reset(new (pointer) cuda::Watch{});
  check_cuda(cudaHostGetDevicePointer(&pointer, watch_.get(), 0), "map host memory");
  auto* const on_device = static_cast<cuda::Watch*>(pointer);
  const auto take_zero = [](auto& word) {
    void* taken = nullptr;
    check_cuda(cudaMalloc(&taken, sizeof *word), "take device memory");
    word.reset(static_cast<decltype(word.get())>(taken));
    check_cuda(cudaMemset(taken, 0, sizeof *word), "clear device memory");
  };
  take_zero(dead_);
  take_zero(waited_ns_);
  check_cuda(cuda::load_peer_kernels(), "load kernels");
  check_cuda(cudaDeviceSynchronize(), "start the GPU");
  waiting_ = {on_device, dead_.get(), static_cast<std::uint64_t>(timeout_.count()), waited_ns_.get()};
  watcher_ = std::jthread([this](const std::stop_token& stop) { keep_watch(stop); });
}

DeviceOperations::~DeviceOperations() {
  static_cast<void>(cudaSetDevice(device_));
  static_cast<void>(cudaDeviceSynchronize());  // under watch: what waits will end
}

void DeviceOperations::enter() const {
  check();
  use_device(device_);
}

void DeviceOperations::copy(std::span<const Copy> copies, Stream stream) {
  enter();
  in_batches(copies, row_copy, [&](const auto& batch) { return cuda::copy_rows(batch, dead(), stream); });
}

// Unlike kernels these do not ask whether the job is dead: a peer's memory stays mapped, and what comes of it
// is thrown away.
void DeviceOperations::copy_beside(std::span<const Copy> copies, Stream stream) {
  enter();
  for (const Copy& copy : copies) {
    const cuda::RowCopy rows = row_copy(copy);
    const auto bytes = static_cast<std::size_t>(rows.row_bytes);
    check_cuda(rows.rows == 1
                   ? cudaMemcpyAsync(rows.to, rows.from, bytes, cudaMemcpyDefault, stream)
                   : cudaMemcpy2DAsync(rows.to, static_cast<std::size_t>(rows.to_stride), rows.from,
                                       static_cast<std::size_t>(rows.from_stride), bytes,
                                       static_cast<std::size_t>(rows.rows), cudaMemcpyDefault, stream),
               "copy to a peer");
  }
}

void DeviceOperations::raise(std::span<const Flag> flags, Stream stream) {
  enter();
  in_batches(flags, device_signal,
             [&](const auto& batch) { return cuda::raise_signals(batch, dead(), stream); });
}

void DeviceOperations::await(std::span<const Flag> flags, const char* operation, Stream stream) {
  enter();
  in_batches(flags, device_signal,
             [&](const auto& batch) { return cuda::await_signals(batch, operation, waiting_, stream); });
}

void DeviceOperations::sum(float* to, std::span<const float* const> terms, std::int64_t count,
                           Stream stream) {
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

void DeviceOperations::check() const {
  const std::uint32_t fault = std::atomic_ref(watch_->fault).load(std::memory_order_acquire);
  if (fault == cuda::Watch::kNone) return;
  if (fault == cuda::Watch::kSilent) throw silent_peer(rank_, watch_->peer, timeout_, watch_->operation);
  throw aborted_wait(job_->aborted().value_or(-1), rank_, watch_->peer, watch_->operation);
}

double DeviceOperations::waited_s() const {
  use_device(device_);
  unsigned long long waited_ns = 0;
  check_cuda(cudaMemcpy(&waited_ns, waited_ns_.get(), sizeof waited_ns, cudaMemcpyDeviceToHost),
             "read how long a GPU has waited");
  return static_cast<double>(waited_ns) / 1e9;
}

void DeviceOperations::label(std::span<const Label> labels, Stream stream) {
  enter();
  in_batches(labels, device_label,
             [&](const auto& batch) { return cuda::write_labels(batch, kLists, dead(), stream); });
}

void DeviceOperations::land(std::span<const Landing> landings, Stream stream) {
  enter();
  std::int64_t most = 0;
  for (const Landing& landing : landings) most = std::max(most, landing.bytes);
  in_batches(landings, device_landing,
             [&](const auto& batch) { return cuda::land_extents(batch, kLists, most, dead(), stream); });
}

// Lets waiting kernels know of time and of the job's end: a kernel cannot tell that its host was stopped.
void DeviceOperations::keep_watch(const std::stop_token& stop) {
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

}  // namespace xdit::comm
