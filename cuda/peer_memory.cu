#include "cuda/peer_memory.h"

#include <cstddef>

namespace xdit::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kInFlight = 4;         // loads a thread has under way
constexpr int kMostBlocks = 1024;    // of a launch: enough to fill any GPU
constexpr int kLandingBlocks = 256;  // of a launch: enough to fill PCIe, and each reads a list of extents
constexpr unsigned kPollEvery = 64;  // looks at a word for each at the host's memory, which is far away

template <class T>
__device__ T load_relaxed(const T* at) {
  return *static_cast<const volatile T*>(at);
}

__device__ std::uint64_t load_acquire(const std::uint64_t* at) {
  std::uint64_t value;
  asm volatile("ld.acquire.sys.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
  return value;
}

__device__ std::uint64_t now_ns() {
  std::uint64_t value;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(value)::"memory");
  return value;
}

__device__ void store_release(std::uint64_t* at, std::uint64_t value) {
  asm volatile("st.release.sys.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}

// The x-blocks of a copy take its units in turn.
template <class Unit>
__device__ void copy_units(const RowCopy& copy) {
  const auto* from = static_cast<const std::byte*>(copy.from);
  auto* to = static_cast<std::byte*>(copy.to);
  const auto in_row = static_cast<std::uint64_t>(copy.row_bytes) / sizeof(Unit);
  const std::uint64_t units = static_cast<std::uint64_t>(copy.rows) * in_row;
  const std::uint64_t step = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t first = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; first < units;
       first += kInFlight * step) {
    Unit values[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const std::uint64_t unit = first + i * step;
      if (unit < units)
        values[i] = *reinterpret_cast<const Unit*>(from + (unit / in_row) * copy.from_stride +
                                                   (unit % in_row) * sizeof(Unit));
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const std::uint64_t unit = first + i * step;
      if (unit < units)
        *reinterpret_cast<Unit*>(to + (unit / in_row) * copy.to_stride + (unit % in_row) * sizeof(Unit)) =
            values[i];
    }
  }
}

// In the widest units that its addresses and sizes allow.
__device__ void copy_widest(const RowCopy& copy) {
  const auto bits = reinterpret_cast<std::uintptr_t>(copy.from) | reinterpret_cast<std::uintptr_t>(copy.to) |
                    static_cast<std::uintptr_t>(copy.row_bytes | copy.from_stride | copy.to_stride);
  if (bits % 16 == 0)
    copy_units<uint4>(copy);
  else if (bits % 8 == 0)
    copy_units<uint2>(copy);
  else if (bits % 4 == 0)
    copy_units<std::uint32_t>(copy);
  else if (bits % 2 == 0)
    copy_units<std::uint16_t>(copy);
  else
    copy_units<std::uint8_t>(copy);
}

// A copy in each blockIdx.y.
__global__ void __launch_bounds__(kThreads)
    copy_rows_kernel(const __grid_constant__ Batch<RowCopy> copies, const std::uint32_t* dead) {
  if (load_relaxed(dead) == 0) copy_widest(copies.items[blockIdx.y]);
}

__global__ void write_labels_kernel(const __grid_constant__ Batch<Label> labels, const Lists lists,
                                    const std::uint32_t* dead) {
  if (static_cast<int>(threadIdx.x) >= labels.count || load_relaxed(dead) != 0) return;
  const Label& label = labels.items[threadIdx.x];
  label.list[*label.count % lists.ahead * lists.most + label.index] = label.extent;
}

// A landing in each blockIdx.y. The list lies far away: its extents are read at once.
__global__ void __launch_bounds__(kThreads)
    land_extents_kernel(const __grid_constant__ Batch<Landing> landings, const Lists lists,
                        const std::uint32_t* dead) {
  if (load_relaxed(dead) != 0) return;
  __shared__ Extent extents[kThreads];
  const Landing& landing = landings.items[blockIdx.y];
  if (static_cast<int>(threadIdx.x) < lists.most)
    extents[threadIdx.x] = landing.list[(*landing.count - 1) % lists.ahead * lists.most + threadIdx.x];
  __syncthreads();
  for (int i = 0; i < lists.most && extents[i].rows > 0; ++i) {
    const Extent& extent = extents[i];
    copy_widest({static_cast<const std::byte*>(landing.from) + extent.offset,
                 static_cast<std::byte*>(landing.to) + extent.offset, extent.rows, extent.row_bytes,
                 extent.stride, extent.stride});
  }
}

__global__ void raise_signals_kernel(const __grid_constant__ Batch<Signal> signals,
                                     const std::uint32_t* dead) {
  if (static_cast<int>(threadIdx.x) >= signals.count || load_relaxed(dead) != 0) return;
  const Signal& signal = signals.items[threadIdx.x];
  const std::uint64_t epoch = ++*signal.count;
  __threadfence_system();
  store_release(signal.word, epoch);
}

__device__ void fail(const Waiting& waiting, Watch::Fault fault, int peer, const char* operation) {
  if (atomicExch(waiting.dead, 1U) != 0) return;  // another was first
  volatile Watch* watch = waiting.watch;
  watch->peer = peer;
  watch->operation = operation;
  __threadfence_system();
  watch->fault = fault;
}

__device__ void await_signal(const Signal& signal, std::uint64_t epoch, const char* operation,
                             const Waiting& waiting) {
  std::uint64_t start_ns = 0;
  for (unsigned turn = 0; load_acquire(signal.word) < epoch; ++turn) {
    if (turn % kPollEvery != 0) continue;
    if (load_relaxed(waiting.dead) != 0) return;
    const std::uint64_t clock_ns = load_relaxed(&waiting.watch->clock_ns);
    if (turn == 0) start_ns = clock_ns;
    if (load_relaxed(&waiting.watch->stop) != 0)
      return fail(waiting, Watch::kStopped, signal.peer, operation);
    if (clock_ns - start_ns >= waiting.timeout_ns)
      return fail(waiting, Watch::kSilent, signal.peer, operation);
  }
}

// Signals that are there at the first look take no more than that look.
__global__ void await_signals_kernel(const __grid_constant__ Batch<Signal> signals, const char* operation,
                                     const Waiting waiting) {
  const bool awaits = static_cast<int>(threadIdx.x) < signals.count;
  const Signal& signal = signals.items[threadIdx.x];
  const std::uint64_t epoch = awaits ? ++*signal.count : 0;
  const bool there = !awaits || load_acquire(signal.word) >= epoch;
  if (__syncthreads_and(there ? 1 : 0) != 0) return;
  const std::uint64_t start_ns = now_ns();
  if (!there) await_signal(signal, epoch, operation, waiting);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(waiting.waited_ns, now_ns() - start_ns);
}

__global__ void __launch_bounds__(kThreads)
    sum_terms_kernel(float* to, const __grid_constant__ Batch<const float*> terms, std::int64_t count) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    float sum = terms.items[0][i];
    for (int term = 1; term < terms.count; ++term) sum += terms.items[term][i];
    to[i] = sum;
  }
}

unsigned blocks_for(std::int64_t elements, std::int64_t most) {
  const std::int64_t blocks = (elements + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

}  // namespace

cudaError_t copy_rows(const Batch<RowCopy>& copies, const std::uint32_t* dead, cudaStream_t stream) {
  if (copies.count == 0) return cudaSuccess;
  std::int64_t largest = 0;
  for (int i = 0; i < copies.count; ++i) {
    const std::int64_t bytes = copies.items[i].rows * copies.items[i].row_bytes;
    if (bytes > largest) largest = bytes;
  }
  const std::int64_t most = (kMostBlocks + copies.count - 1) / copies.count;
  const dim3 grid(blocks_for(largest / (16 * kInFlight), most), static_cast<unsigned>(copies.count));
  copy_rows_kernel<<<grid, kThreads, 0, stream>>>(copies, dead);
  return cudaGetLastError();
}

cudaError_t raise_signals(const Batch<Signal>& signals, const std::uint32_t* dead, cudaStream_t stream) {
  if (signals.count == 0) return cudaSuccess;
  raise_signals_kernel<<<1, Batch<Signal>::kMost, 0, stream>>>(signals, dead);
  return cudaGetLastError();
}

cudaError_t await_signals(const Batch<Signal>& signals, const char* operation, const Waiting& waiting,
                          cudaStream_t stream) {
  if (signals.count == 0) return cudaSuccess;
  await_signals_kernel<<<1, Batch<Signal>::kMost, 0, stream>>>(signals, operation, waiting);
  return cudaGetLastError();
}

cudaError_t sum_terms(float* to, const Batch<const float*>& terms, std::int64_t count, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  sum_terms_kernel<<<blocks_for(count, kMostBlocks), kThreads, 0, stream>>>(to, terms, count);
  return cudaGetLastError();
}

cudaError_t write_labels(const Batch<Label>& labels, Lists lists, const std::uint32_t* dead,
                         cudaStream_t stream) {
  if (labels.count == 0) return cudaSuccess;
  write_labels_kernel<<<1, Batch<Label>::kMost, 0, stream>>>(labels, lists, dead);
  return cudaGetLastError();
}

cudaError_t land_extents(const Batch<Landing>& landings, Lists lists, std::int64_t most_bytes,
                         const std::uint32_t* dead, cudaStream_t stream) {
  if (landings.count == 0) return cudaSuccess;
  if (lists.most > kThreads) return cudaErrorInvalidValue;
  const std::int64_t most = (kLandingBlocks + landings.count - 1) / landings.count;
  const dim3 grid(blocks_for(most_bytes / (16 * kInFlight), most), static_cast<unsigned>(landings.count));
  land_extents_kernel<<<grid, kThreads, 0, stream>>>(landings, lists, dead);
  return cudaGetLastError();
}

cudaError_t load_peer_kernels() {
  cudaFuncAttributes attributes;
  for (const void* kernel :
       {reinterpret_cast<const void*>(copy_rows_kernel), reinterpret_cast<const void*>(raise_signals_kernel),
        reinterpret_cast<const void*>(await_signals_kernel), reinterpret_cast<const void*>(sum_terms_kernel),
        reinterpret_cast<const void*>(write_labels_kernel),
        reinterpret_cast<const void*>(land_extents_kernel)})
    if (const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel)) return error;
  return cudaSuccess;
}

}  // namespace xdit::cuda
