#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/use.h"
#include "models/denoiser.h"

namespace xdit::parallel {

/// Captured forwards. They outlast a ReplayedDenoiser, but neither the denoiser that it wraps, whose memory
/// they read, nor the memory of what it exchanges, nor a pair of ranks' signals that went apart.
class Replays {
 public:
  Replays();
  Replays(const Replays&) = delete;
  Replays& operator=(const Replays&) = delete;
  ~Replays();
  void clear();  ///< lets them go

 private:
  friend class ReplayedDenoiser;
  struct Slot;
  struct Memory;
  std::vector<std::unique_ptr<Slot>> slots_;  ///< used last: the last
  std::unique_ptr<Memory> memory_;            ///< that all graphs share: one runs at a time
};

/// A denoiser on a GPU whose forwards are CUDA graphs. The first forward of its kind runs as it is, which
/// loads kernels and plans convolutions; the next is captured, exchanges included, and from then on replayed:
/// the same kernels in the same order, so the same bytes, at one launch. Graphs work on branches of their
/// own, into which others are copied.
class ReplayedDenoiser final : public models::Denoiser {
 public:
  /// `use` counts what forwards send, null: nothing. All outlive it.
  ReplayedDenoiser(models::Denoiser& denoiser, comm::Use* use, Replays& replays);

  std::unique_ptr<models::Branch> prepare(const models::PromptEmbedding& prompt,
                                          const models::LoopShape& shape) override;
  std::unique_ptr<models::Branch> join(const models::Branch& a, const models::Branch& b) override;
  void prepared_all() override { denoiser_.prepared_all(); }
  void select(const models::Branch& branch, std::int64_t step) override;
  /// Of whole pictures.
  at::Tensor predict(const models::Branch& branch, const at::Tensor& input,
                     const models::ForwardPart& part) override;
  at::Tensor pack(const at::Tensor& latents) const override { return denoiser_.pack(latents); }
  at::Tensor unpack(const at::Tensor& packed, std::int64_t rows, std::int64_t columns) const override {
    return denoiser_.unpack(packed, rows, columns);
  }
  at::Tensor as_diffusers(const at::Tensor& packed, std::int64_t rows, std::int64_t columns) const override {
    return denoiser_.as_diffusers(packed, rows, columns);
  }

 private:
  /// The slot that holds the branch, which may have been another's.
  Replays::Slot& slot_of(const models::Branch& branch, const at::Tensor& input);
  void capture(Replays::Slot& slot, const models::ForwardPart& part);

  models::Denoiser& denoiser_;
  comm::Use* use_;
  Replays& replays_;
};

}  // namespace xdit::parallel
