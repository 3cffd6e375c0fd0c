#pragma once
#include <ATen/core/Tensor.h>

#include <chrono>
#include <memory>
#include <optional>

#include "comm/group.h"
#include "comm/job.h"
#include "models/registry.h"
#include "nn/attention.h"
#include "parallel/loop.h"
#include "parallel/plan.h"
#include "parallel/split_guide.h"

namespace xdit::parallel {

/// How a picture is spread over ranks, as one of them sees it: an implementation of each seam that the plan
/// asks for.
class Spread {
 public:
  /// Collective over all ranks of the plan, idle ones included, where any of them exchange something; `peers`
  /// is null where none do. `options`: dtype and device of activations.
  Spread(const Plan& plan, std::int64_t rank, const models::Shape& shape,
         const std::shared_ptr<const comm::Job>& peers, std::chrono::nanoseconds timeout,
         const at::TensorOptions& options);

  [[nodiscard]] nn::Attention& attention() { return *attention_; }
  [[nodiscard]] Guide& guide() { return *guide_; }
  /// The picture's latents in the loop's layout, [T, C], from each rank's tokens of it.
  [[nodiscard]] at::Tensor all_tokens(const at::Tensor& latents) {
    return gather_ ? (*gather_)(latents) : latents;
  }
  /// Throws what an exchange has met; call it when the device's work is done and before its result is used.
  void check() const {
    if (world_) world_->check();
  }

 private:
  std::optional<comm::Group> world_;
  std::optional<comm::Group> tokens_;    ///< holds the tokens of a picture together
  std::optional<comm::Group> branches_;  ///< the two branches of a guided step
  std::unique_ptr<nn::Attention> attention_;
  std::unique_ptr<Guide> guide_;
  std::optional<TokenGather> gather_;
};

}  // namespace xdit::parallel
