#include "parallel/replayed_denoiser.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <utility>

#include "core/error.h"

namespace xdit::parallel {
namespace {

class ReplayedBranch final : public models::Branch {
 public:
  explicit ReplayedBranch(std::unique_ptr<models::Branch> of) : branch(std::move(of)) {}

  struct Forward {
    bool ran = false;
    std::unique_ptr<at::cuda::CUDAGraph> graph{};
    at::Tensor input, output;  // of the graph
    std::uint64_t bytes_sent = 0;
  };
  std::unique_ptr<models::Branch> branch;
  std::unique_ptr<Forward> forward = std::make_unique<Forward>();
};

const ReplayedBranch& known(const models::Branch& branch) {
  return static_cast<const ReplayedBranch&>(branch);
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

}  // namespace

struct ReplayedDenoiser::Memory {
  at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
};

ReplayedDenoiser::ReplayedDenoiser(models::Denoiser& denoiser, comm::Use* use)
    : denoiser_(denoiser), use_(use), memory_(std::make_unique<Memory>()) {}
ReplayedDenoiser::~ReplayedDenoiser() = default;

std::unique_ptr<models::Branch> ReplayedDenoiser::prepare(const models::PromptEmbedding& prompt,
                                                          const models::LoopShape& shape) {
  return std::make_unique<ReplayedBranch>(denoiser_.prepare(prompt, shape));
}

std::unique_ptr<models::Branch> ReplayedDenoiser::join(const models::Branch& a, const models::Branch& b) {
  std::unique_ptr<models::Branch> both = denoiser_.join(*known(a).branch, *known(b).branch);
  return both ? std::make_unique<ReplayedBranch>(std::move(both)) : nullptr;
}

void ReplayedDenoiser::select(const models::Branch& branch, std::int64_t step) {
  denoiser_.select(*known(branch).branch, step);
}

at::Tensor ReplayedDenoiser::predict(const models::Branch& branch, const at::Tensor& input,
                                     const models::ForwardPart& part) {
  const ReplayedBranch& replayed = known(branch);
  ReplayedBranch::Forward& forward = *replayed.forward;
  if (!std::exchange(forward.ran, true)) return denoiser_.predict(*replayed.branch, input, part);
  if (!forward.graph) {
    make_room(input.get_device());
    const std::uint64_t sent = use_ != nullptr ? use_->bytes_sent() : 0;
    forward.input = input.clone();
    forward.graph = std::make_unique<at::cuda::CUDAGraph>();
    const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool(false, input.get_device()));
    forward.graph->capture_begin(memory_->pool, cudaStreamCaptureModeThreadLocal);
    forward.output = denoiser_.predict(*replayed.branch, forward.input, part);
    forward.graph->capture_end();
    if (use_ != nullptr) forward.bytes_sent = use_->bytes_sent() - sent;
  } else {
    forward.input.copy_(input);
    if (use_ != nullptr) use_->send(static_cast<std::int64_t>(forward.bytes_sent));
  }
  XDIT_ASSERT(input.sizes() == forward.input.sizes());
  forward.graph->replay();
  return forward.output.clone();  // the next replay overwrites it
}

}  // namespace xdit::parallel
