#include "parallel/replayed_denoiser.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "core/error.h"
#include "nn/counters.h"
#include "nn/fused.h"

namespace xdit::parallel {
namespace {

constexpr std::int64_t kSlots = 2;     // of one kind: a guided step's branches, one by one
constexpr std::size_t kMostSlots = 4;  // of all kinds

class ReplayedBranch final : public models::Branch {
 public:
  explicit ReplayedBranch(std::unique_ptr<models::Branch> of) : branch(std::move(of)) {}
  [[nodiscard]] std::vector<at::Tensor> tensors() const override { return branch->tensors(); }
  [[nodiscard]] std::unique_ptr<Branch> clone() const override { return branch->clone(); }

  std::unique_ptr<models::Branch> branch;
  mutable std::int64_t step = 0;
  std::shared_ptr<const char> identity = std::make_shared<const char>();  // an address that is no other's
};

const ReplayedBranch& known(const models::Branch& branch) {
  return static_cast<const ReplayedBranch&>(branch);
}

bool alike(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const at::Tensor& x, const at::Tensor& y) {
    return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type();
  });
}

// A capture takes memory of its own, about as much as the forward before has left in the allocator's cache,
// which it cannot use.
void make_room(c10::DeviceIndex device) {
  using c10::CachingAllocator::StatType;
  std::size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device);
  const auto all = static_cast<std::size_t>(StatType::AGGREGATE);
  const std::int64_t cached = stats.reserved_bytes[all].current - stats.allocated_bytes[all].current;
  if (static_cast<std::int64_t>(free) < cached) c10::cuda::CUDACachingAllocator::emptyCache();
}

// Of a capture that failed: else the stream stays in it, and the allocator gives nothing back.
void end_anyhow(at::cuda::CUDAGraph& graph, c10::DeviceIndex device, at::cuda::MempoolId_t pool) {
  try {
    graph.capture_end();
  } catch (const c10::Error&) {
    static_cast<void>(cudaGetLastError());
    try {
      c10::cuda::CUDACachingAllocator::endAllocateToPool(device, pool);
    } catch (const c10::Error&) {  // it has been
    }
  }
}

}  // namespace

// One stream captures all: the allocator lets graphs share what one stream has freed.
struct Replays::Memory {
  at::cuda::MempoolId_t pool{};
  std::optional<c10::cuda::CUDAStream> stream;
};

struct Replays::Slot {
  std::unique_ptr<models::Branch> branch;
  std::vector<at::Tensor> tensors;   // the branch's
  at::Tensor input, output;          // of the graph
  std::shared_ptr<const char> held;  // identity of the branch whose values these are
  std::int64_t step = -1;            // that is selected
  bool ran = false;
  at::Tensor counters;  // of the graph's kernels
  std::unique_ptr<at::cuda::CUDAGraph> graph{};
  std::uint64_t bytes_sent = 0;
};

Replays::Replays() : memory_(std::make_unique<Memory>()) {}
Replays::~Replays() = default;

void Replays::clear() {
  slots_.clear();
}

ReplayedDenoiser::ReplayedDenoiser(models::Denoiser& denoiser, comm::Use* use, Replays& replays)
    : denoiser_(denoiser), use_(use), replays_(replays) {}

std::unique_ptr<models::Branch> ReplayedDenoiser::prepare(const models::PromptEmbedding& prompt,
                                                          const models::LoopShape& shape) {
  return std::make_unique<ReplayedBranch>(denoiser_.prepare(prompt, shape));
}

std::unique_ptr<models::Branch> ReplayedDenoiser::join(const models::Branch& a, const models::Branch& b) {
  std::unique_ptr<models::Branch> both = denoiser_.join(*known(a).branch, *known(b).branch);
  return both ? std::make_unique<ReplayedBranch>(std::move(both)) : nullptr;
}

void ReplayedDenoiser::select(const models::Branch& branch, std::int64_t step) {
  known(branch).step = step;
}

Replays::Slot& ReplayedDenoiser::slot_of(const models::Branch& branch, const at::Tensor& input) {
  const ReplayedBranch& asked = known(branch);
  auto& slots = replays_.slots_;
  const auto used_last = [&](auto found) -> Replays::Slot& {
    std::rotate(found, found + 1, slots.end());
    return *slots.back();
  };
  const auto held =
      std::ranges::find_if(slots, [&](const auto& slot) { return slot->held == asked.identity; });
  if (held != slots.end()) return used_last(held);
  const std::vector<at::Tensor> values = asked.tensors();
  const auto fits = [&](const auto& slot) {
    return slot->input.sizes() == input.sizes() && alike(slot->tensors, values);
  };
  const auto idle = std::ranges::find_if(slots, [&](const auto& slot) {
    return fits(slot) && slot->held.use_count() == 1;
  });  // its branch is gone
  const std::int64_t kin = std::ranges::count_if(slots, fits);
  if (idle == slots.end() && kin < kSlots) {
    if (slots.size() == kMostSlots) slots.erase(slots.begin());
    auto slot = std::make_unique<Replays::Slot>();
    slot->branch = asked.clone();
    slot->tensors = slot->branch->tensors();
    slot->input = input.clone();
    slot->ran = kin > 0;
    slots.push_back(std::move(slot));
  } else {
    Replays::Slot& slot = used_last(idle != slots.end() ? idle : std::ranges::find_if(slots, fits));
    for (std::size_t i = 0; i < values.size(); ++i) slot.tensors[i].copy_(values[i]);
    slot.step = -1;
  }
  slots.back()->held = asked.identity;
  return *slots.back();
}

void ReplayedDenoiser::capture(Replays::Slot& slot, const models::ForwardPart& part) {
  const c10::DeviceIndex device = slot.input.get_device();
  make_room(device);
  Replays::Memory& memory = *replays_.memory_;
  if (std::ranges::none_of(replays_.slots_, [](const auto& of) { return of->graph != nullptr; }))
    memory.pool = at::cuda::graph_pool_handle();  // the allocator takes none again whose graphs are gone
  if (!memory.stream) memory.stream = c10::cuda::getStreamFromPool(false, device);
  const c10::cuda::CUDAStreamGuard guard(*memory.stream);
  const nn::Counters counters(slot.input.device());
  auto graph = std::make_unique<at::cuda::CUDAGraph>(/*keep_graph=*/true);
  graph->capture_begin(memory.pool, cudaStreamCaptureModeThreadLocal);
  try {
    slot.output = denoiser_.predict(*slot.branch, slot.input, part);
  } catch (...) {
    end_anyhow(*graph, device, memory.pool);
    throw;
  }
  graph->capture_end();
  slot.counters = counters.used();
  nn::fused::fill_by_kernels(*graph, slot.counters);
  graph->instantiate();
  slot.graph = std::move(graph);
}

at::Tensor ReplayedDenoiser::predict(const models::Branch& branch, const at::Tensor& input,
                                     const models::ForwardPart& part) {
  Replays::Slot& slot = slot_of(branch, input);
  if (const std::int64_t step = known(branch).step; slot.step != step) {
    denoiser_.select(*slot.branch, step);
    slot.step = step;
  }
  if (!std::exchange(slot.ran, true)) return denoiser_.predict(*slot.branch, input, part);
  slot.input.copy_(input);
  if (!slot.graph) {
    const std::uint64_t sent = use_ != nullptr ? use_->bytes_sent() : 0;
    capture(slot, part);
    if (use_ != nullptr) slot.bytes_sent = use_->bytes_sent() - sent;
  } else if (use_ != nullptr) {
    use_->send(static_cast<std::int64_t>(slot.bytes_sent));
  }
  slot.graph->replay();
  return slot.output.clone();  // the next replay overwrites it
}

}  // namespace xdit::parallel
