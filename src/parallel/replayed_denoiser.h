#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "comm/use.h"
#include "models/denoiser.h"

namespace xdit::parallel {

/// A denoiser on a GPU whose forwards are CUDA graphs. A branch's first forward runs as it is, which loads
/// kernels and plans convolutions; the second is captured, exchanges included, and from then on replayed: the
/// same kernels in the same order, so the same bytes, at one launch.
class ReplayedDenoiser final : public models::Denoiser {
 public:
  /// `use` counts what forwards send, null: nothing. Both outlive it, and it outlives its branches.
  ReplayedDenoiser(models::Denoiser& denoiser, comm::Use* use);
  ~ReplayedDenoiser() override;

  std::unique_ptr<models::Branch> prepare(const models::PromptEmbedding& prompt,
                                          const models::LoopShape& shape) override;
  std::unique_ptr<models::Branch> join(const models::Branch& a, const models::Branch& b) override;
  void prepared_all() override { denoiser_.prepared_all(); }
  void select(const models::Branch& branch, std::int64_t step) override;
  /// Of whole pictures of one size a branch.
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
  struct Memory;
  models::Denoiser& denoiser_;
  comm::Use* use_;
  std::unique_ptr<Memory> memory_;  ///< of all graphs: one runs at a time
};

}  // namespace xdit::parallel
