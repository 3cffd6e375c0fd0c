#include "comm/nccl.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nccl.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "comm/cuda_error.h"
#include "comm/nccl_window.h"
#include "core/error.h"

namespace xdit::comm {
namespace {

using std::chrono::nanoseconds;

constexpr nanoseconds kWatchEvery = std::chrono::milliseconds(20);  // how soon an abort is seen
constexpr std::int64_t kMessageAlignment = 256;

bool contiguous(const Put& put, std::int64_t stride) {
  return put.rows == 1 || stride == put.row_bytes;
}

bool empty(const Put& put) {
  return put.rows == 0 || put.row_bytes == 0;
}

ncclUniqueId shared_id(Group& group) {
  ncclUniqueId id{};
  static_assert(sizeof id <= Group::kShared);
  if (group.rank() == 0 && ncclGetUniqueId(&id) != ncclSuccess)
    throw Error(ExitCode::kRank, fmt::format("NCCL: {}", ncclGetLastError(nullptr)), "ncclGetUniqueId");
  std::memcpy(&id, group.share(std::as_bytes(std::span(&id, 1))).front().data(), sizeof id);
  return id;
}

// What the others put to `rank`.
std::vector<Put> takes_of(const Slab& slab, std::span<const Range> owned, std::span<const Range> wanted,
                          int rank) {
  std::vector<Put> takes;
  for (int peer = 0; peer < static_cast<int>(owned.size()); ++peer)
    for (Put put : put_rows(slab, owned, wanted, peer)) {
      if (put.peer != rank) continue;
      put.peer = peer;
      takes.push_back(put);
    }
  return takes;
}

}  // namespace

NcclGroup::NcclGroup(Group& group, std::shared_ptr<const Job> job, std::shared_ptr<PeerMemory> memory,
                     int device, nanoseconds timeout)
    : job_(std::move(job)),
      memory_(std::move(memory)),
      device_(device),
      rank_(group.rank()),
      size_(group.size()),
      timeout_(timeout) {
  // Multicast over NVLink: a rank that dies in it can take all GPUs of a host along.
  ::setenv("NCCL_NVLS_ENABLE", "0", 1);
  check_cuda(cudaSetDevice(device_), fmt::format("use GPU {}", device_));
  const ncclUniqueId id = shared_id(group);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const std::lock_guard lock(mutex_);
  const ncclResult_t result = ncclCommInitRankConfig(&communicator_, size_, id, rank_, &config);
  try {
    if (result != ncclSuccess && result != ncclInProgress) fail(result, "ncclCommInitRank");
    settle("ncclCommInitRank");
  } catch (...) {
    abort();
    throw;
  }
  watcher_ = std::jthread([this](const std::stop_token& stop) { keep_watch(stop); });
}

NcclGroup::~NcclGroup() {
  const std::lock_guard lock(mutex_);
  abort();
}

void NcclGroup::close() {
  const std::lock_guard lock(mutex_);
  const ncclResult_t result = ncclCommFinalize(communicator_);
  if (result != ncclSuccess && result != ncclInProgress) fail(result, "ncclCommFinalize");
  settle("ncclCommFinalize");
  static_cast<void>(ncclCommDestroy(std::exchange(communicator_, nullptr)));
}

void NcclGroup::abort() noexcept {
  if (communicator_ != nullptr) static_cast<void>(ncclCommAbort(std::exchange(communicator_, nullptr)));
}

void NcclGroup::fail(int result, const char* operation) {
  throw Error(
      ExitCode::kRank,
      fmt::format("NCCL, rank {}: {} {}", rank_, ncclGetErrorString(static_cast<ncclResult_t>(result)),
                  ncclGetLastError(communicator_)),
      operation, "NCCL_DEBUG=WARN says more");
}

void NcclGroup::settle(const char* operation) {
  const auto until = std::chrono::steady_clock::now() + timeout_;
  ncclResult_t state = ncclInProgress;
  for (;;) {
    const ncclResult_t asked = ncclCommGetAsyncError(communicator_, &state);
    if (asked != ncclSuccess) fail(asked, operation);
    if (state == ncclSuccess) return;
    if (state != ncclInProgress) fail(state, operation);
    if (const auto failed = job_->aborted())
      throw Error(ExitCode::kRank, fmt::format("rank {} failed while rank {} waited for it", *failed, rank_),
                  operation);
    if (std::chrono::steady_clock::now() > until)
      throw Error(ExitCode::kRank,
                  fmt::format("NCCL of rank {} was not done within {} s", rank_,
                              std::chrono::duration<double>(timeout_).count()),
                  operation, "NCCL_DEBUG=WARN says more");
    std::this_thread::yield();
  }
}

void NcclGroup::check() {
  memory_->check();
  const std::lock_guard lock(mutex_);
  if (communicator_ == nullptr)
    throw Error(ExitCode::kRank, fmt::format("rank {} failed while rank {} exchanged over NCCL",
                                             job_->aborted().value_or(-1), rank_));
  ncclResult_t state = ncclSuccess;
  static_cast<void>(ncclCommGetAsyncError(communicator_, &state));
  if (state != ncclSuccess && state != ncclInProgress) fail(state, "exchange");
}

void NcclGroup::keep_watch(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  std::condition_variable_any wakes;
  while (!stop.stop_requested()) {
    wakes.wait_for(lock, stop, kWatchEvery, [] { return false; });
    if (job_->aborted()) abort();
  }
}

void NcclGroup::FreeDevice::operator()(std::byte* data) const {
  static_cast<void>(cudaFree(data));
}

void NcclGroup::reserve(std::int64_t bytes) {
  if (bytes <= staging_bytes_) return;
  staging_.reset();
  staging_bytes_ = 0;
  void* data = nullptr;
  check_cuda(cudaMalloc(&data, static_cast<std::size_t>(bytes)),
             fmt::format("take {} bytes of GPU {}", bytes, device_));
  staging_.reset(static_cast<std::byte*>(data));
  staging_bytes_ = bytes;
}

void NcclGroup::ask(const char* operation, const std::function<int(ncclComm*)>& call) {
  const std::lock_guard lock(mutex_);
  if (communicator_ == nullptr) return;
  const int result = call(communicator_);
  if (result != ncclSuccess && result != ncclInProgress) fail(result, operation);
  settle(operation);
}

void NcclGroup::exchange(std::span<const Put> puts, std::span<const Put> takes, std::byte* to, Stream stream,
                         const char* operation) {
  check();
  check_cuda(cudaSetDevice(device_), fmt::format("use GPU {}", device_));
  struct Message {
    const Put* put;
    std::int64_t packed;  // where in the staging memory; -1: its rows follow each other as they are
  };
  std::int64_t bytes = 0;
  const auto message = [&](const Put& put, std::int64_t stride) {
    if (contiguous(put, stride)) return Message{&put, -1};
    const std::int64_t start = bytes;
    bytes += (put.rows * put.row_bytes + kMessageAlignment - 1) / kMessageAlignment * kMessageAlignment;
    return Message{&put, start};
  };
  std::vector<Message> sends;
  std::vector<Message> receives;
  for (const Put& put : puts)
    if (!empty(put) && put.peer != rank_) sends.push_back(message(put, put.source_stride));
  for (const Put& take : takes)
    if (!empty(take) && take.peer != rank_) receives.push_back(message(take, take.stride));
  reserve(bytes);

  std::vector<Copy> before;
  for (const Put& put : puts) {
    if (empty(put) || put.peer != rank_) continue;
    const auto* const source = static_cast<const std::byte*>(put.source);
    std::byte* const target = to + put.offset;
    const bool in_place = source == target && (put.rows == 1 || put.source_stride == put.stride);
    if (!in_place) before.push_back({source, target, put.rows, put.row_bytes, put.source_stride, put.stride});
  }
  for (const auto& [put, packed] : sends)
    if (packed >= 0)
      before.push_back({static_cast<const std::byte*>(put->source), staging_.get() + packed, put->rows,
                        put->row_bytes, put->source_stride, put->row_bytes});
  memory_->copy(before, stream);

  ask(operation, [&](ncclComm* communicator) {
    ncclResult_t result = ncclGroupStart();
    const auto add = [&](auto call, auto* memory, const Put& put) {
      const ncclResult_t added = call(memory, static_cast<std::size_t>(put.rows * put.row_bytes), ncclInt8,
                                      put.peer, communicator, stream);
      if (result == ncclSuccess || result == ncclInProgress) result = added;
    };
    for (const auto& [put, packed] : sends)
      add(ncclSend, packed < 0 ? put->source : staging_.get() + packed, *put);
    for (const auto& [take, packed] : receives)
      add(ncclRecv, packed < 0 ? to + take->offset : staging_.get() + packed, *take);
    const ncclResult_t ended = ncclGroupEnd();
    return result == ncclSuccess || result == ncclInProgress ? ended : result;
  });

  std::vector<Copy> after;
  for (const auto& [take, packed] : receives)
    if (packed >= 0)
      after.push_back({staging_.get() + packed, to + take->offset, take->rows, take->row_bytes,
                       take->row_bytes, take->stride});
  memory_->copy(after, stream);
}

void NcclGroup::all_to_all_v(std::span<const Put> puts, std::span<const Put> takes, std::byte* to,
                             Stream stream) {
  exchange(puts, takes, to, stream, "all_to_all");
}

void NcclGroup::all_gather_v(const void* mine, std::span<const Range> parts, std::byte* to, Stream stream) {
  std::int64_t end = 0;
  for (const Range& part : parts) end = std::max(end, part.end());
  const std::vector<Range> all(parts.size(), Range{0, end});
  gather_rows({.data = mine, .row_bytes = 1}, parts, all, to, stream);
}

void NcclGroup::gather_rows(const Slab& mine, std::span<const Range> owned, std::span<const Range> wanted,
                            std::byte* to, Stream stream) {
  exchange(put_rows(mine, owned, wanted, rank_), takes_of(mine, owned, wanted, rank_), to, stream,
           "gather_rows");
}

void NcclGroup::broadcast(const void* source, std::int64_t bytes, int root, std::byte* to, Stream stream) {
  std::vector<Put> puts;
  for (int peer = 0; rank_ == root && peer < size_; ++peer)
    puts.push_back({.peer = peer, .source = source, .rows = 1, .row_bytes = bytes});
  const Put take{.peer = root, .rows = 1, .row_bytes = bytes};
  exchange(puts, {&take, 1}, to, stream, "broadcast");
}

void NcclGroup::sum(const float* source, std::span<const Range> parts, std::byte* staging, float* to,
                    Stream stream) {
  constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));
  const std::int64_t count = parts[rank_].count;
  std::vector<Put> puts;
  std::vector<Put> takes;
  std::vector<const float*> terms;
  for (int peer = 0; peer < size_; ++peer) {
    puts.push_back({.peer = peer,
                    .source = source + parts[peer].first,
                    .rows = 1,
                    .row_bytes = parts[peer].count * kFloat,
                    .offset = rank_ * parts[peer].count * kFloat});
    takes.push_back({.peer = peer, .rows = 1, .row_bytes = count * kFloat, .offset = peer * count * kFloat});
    terms.push_back(reinterpret_cast<const float*>(staging) + peer * count);
  }
  exchange(puts, takes, staging, stream, "sum");
  memory_->sum(to, terms, count, stream);
}

void NcclGroup::all_gather(const NcclWindow& window, std::int64_t bytes, Stream stream) {
  check();
  ask("all_gather", [&](ncclComm* communicator) {
    return ncclAllGather(window.data() + rank_ * bytes, window.data(), static_cast<std::size_t>(bytes),
                         ncclInt8, communicator, stream);
  });
}

void NcclGroup::reduce_scatter(const NcclWindow& window, std::int64_t count, Stream stream) {
  check();
  auto* const sums = reinterpret_cast<float*>(window.data());
  ask("reduce_scatter", [&](ncclComm* communicator) {
    return ncclReduceScatter(sums, sums + rank_ * count, static_cast<std::size_t>(count), ncclFloat32,
                             ncclSum, communicator, stream);
  });
}

NcclWindow::NcclWindow(NcclGroup& group, std::int64_t bytes) : group_(group) {
  check_cuda(cudaSetDevice(group.device_), fmt::format("use GPU {}", group.device_));
  void* data = nullptr;
  const auto size = static_cast<std::size_t>(bytes);
  if (const ncclResult_t result = ncclMemAlloc(&data, size); result != ncclSuccess)
    throw Error(ExitCode::kMemory, fmt::format("NCCL: {}", ncclGetErrorString(result)), "ncclMemAlloc");
  data_ = static_cast<std::byte*>(data);
  try {
    group.ask("ncclCommWindowRegister", [&](ncclComm* communicator) {
      return ncclCommWindowRegister(communicator, data, size, &window_, NCCL_WIN_COLL_SYMMETRIC);
    });
  } catch (...) {
    const std::lock_guard lock(group.mutex_);
    group.abort();  // it may still be at it
    static_cast<void>(ncclMemFree(data));
    throw;
  }
}

NcclWindow::~NcclWindow() {
  const std::lock_guard lock(group_.mutex_);
  if (group_.communicator_ != nullptr && window_ != nullptr) {
    static_cast<void>(ncclCommWindowDeregister(group_.communicator_, window_));
    try {
      group_.settle("ncclCommWindowDeregister");
    } catch (const Error&) {  // the next check() says so
    }
  }
  static_cast<void>(ncclMemFree(data_));
}

}  // namespace xdit::comm
