#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

/// Launchers of what ranks do in each other's memory. Each returns the launch's error, and each can be
/// captured: what they need goes by value.
namespace xdit::cuda {

/// What one launch takes (64 of 48 bytes stay under 4 KiB of arguments).
template <class T>
struct Batch {
  static constexpr int kMost = 64;
  int count = 0;
  T items[kMost];
};

/// A strided copy, in bytes. Either end may be another GPU's memory that is mapped here.
struct RowCopy {
  const void* from;
  void* to;
  std::int64_t rows;
  std::int64_t row_bytes;
  std::int64_t from_stride;
  std::int64_t to_stride;
};

/// One direction of a pair's signals: comm::Flag.
struct Signal {
  std::uint64_t* word;
  std::uint64_t* count;
  int peer;
};

/// Rows in a buffer: comm::Extent.
struct Extent {
  std::int64_t offset;
  std::int64_t rows;
  std::int64_t row_bytes;
  std::int64_t stride;
};
/// One of what a sender puts: comm::Label.
struct Label {
  Extent* list;
  const std::uint64_t* count;
  std::int32_t index;
  Extent extent;
};
/// What a transfer has left: comm::Landing.
struct Landing {
  const Extent* list;
  const std::uint64_t* count;
  const void* from;
  void* to;
};
/// Extents of a transfer, and transfers that a list has room for: those of comm::Label.
struct Lists {
  std::int32_t most;
  std::int32_t ahead;
};

/// What waiting kernels and the host tell each other, in mapped host memory.
struct Watch {
  alignas(64) std::uint64_t clock_ns;  ///< the host's; stands still while the host is stopped
  std::uint32_t stop;                  ///< not 0: waits end
  enum Fault : std::uint32_t { kNone, kStopped, kSilent };
  alignas(64) std::uint32_t fault;  ///< why the first wait ended without its signal; then the rest is valid
  int peer;
  const char* operation;
};
struct Waiting {
  Watch* watch;         ///< as mapped on the device
  std::uint32_t* dead;  ///< device memory; not 0 once a wait failed: later work must not reach the peers
  std::uint64_t timeout_ns;
  unsigned long long* waited_ns;  ///< device memory; await_signals adds to it
};

cudaError_t copy_rows(const Batch<RowCopy>& copies, const std::uint32_t* dead, cudaStream_t stream);
/// What the stream did before is seen by whoever sees the word.
cudaError_t raise_signals(const Batch<Signal>& signals, const std::uint32_t* dead, cudaStream_t stream);
/// One block of two warps waits. `operation` is only passed on to the Watch. Where a signal is not there yet,
/// the time until all are is added to Waiting::waited_ns.
cudaError_t await_signals(const Batch<Signal>& signals, const char* operation, const Waiting& waiting,
                          cudaStream_t stream);
/// to = ((terms[0] + terms[1]) + terms[2]) ...; `to` may be terms[0].
cudaError_t sum_terms(float* to, const Batch<const float*>& terms, std::int64_t count, cudaStream_t stream);
cudaError_t write_labels(const Batch<Label>& labels, Lists lists, const std::uint32_t* dead,
                         cudaStream_t stream);
/// `most_bytes`: of a landing; lists.most is at most 256.
cudaError_t land_extents(const Batch<Landing>& landings, Lists lists, std::int64_t most_bytes,
                         const std::uint32_t* dead, cudaStream_t stream);
/// Loads these kernels: done lazily, it could wait for a kernel that waits.
cudaError_t load_peer_kernels();

}  // namespace xdit::cuda
